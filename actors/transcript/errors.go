package transcript

import "errors"

var (
	// ErrWait is returned by Cursor.Next when nothing is available yet. The cursor's notify is called
	// when there is more.
	ErrWait = errors.New("transcript: nothing to read yet")
	// ErrOffset is returned by Transcript.Cursor for an offset that is negative or past the end.
	ErrOffset = errors.New("transcript: no such offset")
	// ErrClosed is returned by a Cursor, Writer or Store used after its Close.
	ErrClosed = errors.New("transcript: closed")

	// These never leave the package: the cursor reports a gap.
	errCorrupt  = errors.New("file does not hold the records that were written to it")
	errRecycled = errors.New("other records have taken the place in the file")
)
