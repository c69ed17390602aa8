package transcript

import "time"

// Retain says which bytes of its output a transcript keeps.
type Retain uint8

// The kinds of transcript.
const (
	// First keeps the first Options.Limit bytes and drops the rest.
	First Retain = iota
	// Unread keeps what its reader has not acknowledged. Its writers wait while that is UnreadWindow
	// bytes or more.
	Unread
	// Last keeps the newest Options.Scrollback bytes. Its writers never wait.
	Last
)

func (r Retain) String() string {
	switch r {
	case Unread:
		return "unread"
	case Last:
		return "last"
	}
	return "first"
}

// UnreadWindow is the number of unacknowledged bytes at which the writers of an Unread transcript
// wait.
const UnreadWindow = 1 << 20

// Options say what a transcript keeps, and who pays for it.
type Options struct {
	// Owner is charged with the bytes on disk: the subject that runs the execution.
	Owner string
	// Retain is the kind of the transcript. Zero: First.
	Retain Retain
	// Limit is the most payload bytes that a First transcript holds; none if not positive. The other
	// kinds ignore it.
	Limit int64
	// Scrollback is the number of payload bytes that a Last transcript keeps. The other kinds ignore
	// it.
	Scrollback int64
}

// Ack says that the reader of an Unread transcript has processed every byte below offset. These
// bytes may go, and writers that waited for room continue. An offset below an earlier one is
// ignored; one past the end acknowledges the end. The other kinds ignore Ack.
func (t *Transcript) Ack(offset int64) {}

// Unblock ends every wait of the writers, now and later: call it when the tree is dead, so that what
// is left in the pipes is taken beyond the window. Seal and Remove do the same. Idempotent.
func (t *Transcript) Unblock() {}

// Blocked reports whether a writer waits for an Ack, and since when: the command is not silent
// then, because its output is not read. It is always false for a First or Last transcript.
func (t *Transcript) Blocked() (since time.Time, blocked bool) { return time.Time{}, false }
