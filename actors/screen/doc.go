// Package screen follows what a program draws on its terminal, so that a viewer who has missed a part
// of the output can be shown the screen as it is.
//
// A [Screen] is given every byte of the output, and draws itself as a sequence of bytes. Written to a
// terminal of the same size, whatever that showed before, they make it show the same cells with the
// same attributes, and give it the cursor, modes, margins, tab stops, character sets and saved cursors
// of the screen, on the normal screen or on the alternate one with the normal one behind it. The bytes
// of a sequence or character that is not complete yet come last, so that a drawing may stand at any
// byte of the output.
//
// What it implements is what xterm.js 6 does, with the widths that it gives to characters when its add-on
// for grapheme clusters is loaded, as it is in the console. See
// https://invisible-island.net/xterm/ctlseqs/ctlseqs.html for the notation. It knows no images, no left and right
// margins or scrolling to the side, no protected cells, no palettes and no encodings of keys beyond xterm's.
//
// # Bounds
//
// A cell takes 16 bytes, and blanks at the end of a row take none. With 1000 columns and 500 rows, which is
// what clients may ask for, each of two pages is 8 MB at most; with 80 columns and 24 rows 31 KB. Beside them
// are at most 4 KiB of a sequence that is not complete (a longer one is ignored as a whole), as much of a
// title, 280 KiB for characters that consist of several and 96 KiB for links. Where more are on the screen
// at a time, characters are shown without their marks, and links as text.
//
// A sequence costs no more work than a few lines of cells do, so that output is followed at more than a
// megabyte a second whatever it is (BenchmarkHostile), and plain text at hundreds.
package screen
