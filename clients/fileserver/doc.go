// Package fileserver is the HTTP door to the files of sessions.
//
// Each request runs the program troupe-files in the session (package actors/files), as a client of the
// engine that has no socket: so a transfer goes through any pod, is bounded by the session's limits and
// ends at its walls. Nothing of a file is held here but what is under way.
//
//	GET    /api/v1/sessions/{id}/files/{path}  a file, or a directory as JSON or tar
//	PUT                                        a file, or a tar archive into a directory
//	POST   ?mkdir, ?move=TARGET
//	DELETE                                     a file, or with ?recursive a tree
//	HEAD, PATCH, DELETE /api/v1/sessions/{id}/uploads/{upload}
//
// docs/files.md describes them. Paths are those of the session's working directory.
package fileserver
