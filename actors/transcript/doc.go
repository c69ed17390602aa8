// Package transcript keeps the output of executions: bounded, on disk, addressed by byte offset.
//
// A [Writer] frames a command's output into lines and appends them to a [Transcript]; any number of
// [Cursor]s read it at their own pace. All transcripts of a [Store] share a budget of bytes on disk;
// the oldest finished ones are evicted.
//
// There are three kinds, told apart by [Retain]. First keeps the first bytes up to a limit and drops
// the rest. Unread is a pipe: it keeps what its reader has not acknowledged, and its writers wait
// while that is [UnreadWindow] or more. Last keeps the newest bytes. A reader that is slow or gone
// costs only the file; where the bytes that it would read are gone, it gets a gap.
//
// Glossary: payload is what the command wrote. A chunk is the payload of one append: bytes that the
// writer held, then the body of the current write. A record is a chunk in the file, behind a
// header. A [Piece] is what a cursor returns: payload of one stream, from one record or several.
//
// # Accounting
//
// Nothing is lost without being counted. Once both writers are closed, the bytes that the command
// wrote are
//
//	OutputBytes − 12·TruncatedLines + TruncatedBytes + DroppedBytes
//
// where 12 is the length of "[TRUNCATED]" and the newline after it. See [Counts].
//
// # Memory
//
// A transcript costs about 500 bytes, 16 bytes for every 64 KiB of its file, and its marks, of which
// it keeps at most 32: about 3 KiB for 10 MiB of output (TestMemoryOfATranscript). An Unread or
// Last one costs 300 bytes more, whatever flows through it (TestLastHasBoundedMemory). A writer in
// line mode holds at most one line (MaxLine bytes), a cursor 400 bytes. Payload stays in the page
// cache.
//
// # Disk
//
// The file of an Unread transcript has less than 4 MiB, and about 1.2 MiB if its records are not
// short. That of a Last one grows by 64 KiB at a time, to its scrollback and about 200 KiB more; a
// budget or a disk that is short makes it keep less. Records of single bytes take twice their payload,
// and ten times where each has a time: see Options.Times.
package transcript
