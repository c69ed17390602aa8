// Package files is the program that moves files in and out of a session, the program troupe-files.
//
// It runs as an ordinary command of the session: inside its walls, within its bounds, and killed
// as every command is. So it can reach nothing that a command could not. Beyond that, it resolves
// each path beneath its working directory and follows no link that leads out of it (os.Root), since
// whoever asks for a/b must not be handed /etc/b by a link that some command has made.
//
// Its only argument is a Request in JSON. It writes one line, a Reply in JSON. After that of
// OpRead come as many bytes as the reply says, and a second line, which says whether they are whole;
// after that of OpPack comes a tar archive, which is whole if the exit code is 0. OpWrite and
// OpUnpack read their content from the standard input and reply when it has ended. OpWatch replies
// with a line for each change.
//
// The exit code is 0, or 1 if the last line has an error.
package files
