package actors

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/troupe-dev/troupe/actors/wire"
)

// shownCommand returns what a listing shows of a command: see wire.SessionExecution. It shares no memory with p.
func shownCommand(p *wire.ExecuteParams) string {
	if len(p.Argv) == 0 {
		return printable(p.Command)
	}
	var b strings.Builder
	for i, arg := range p.Argv {
		if b.Len() > wire.MaxShownCommand {
			break
		}
		if i > 0 {
			b.WriteByte(' ')
		}
		// Of a long argument no more is needed than what is shown, and one more byte, so that it is cut.
		cut := min(len(arg), 4*wire.MaxShownCommand)
		b.WriteString(quoted(arg[:cut]))
	}
	return printable(b.String())
}

// quoted returns an argument as a POSIX shell takes it.
func quoted(arg string) string {
	plain := arg != "" && !strings.ContainsFunc(arg, func(r rune) bool {
		return !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune("@%+=:,./_-", r)
	})
	if plain {
		return arg
	}
	return "'" + strings.ReplaceAll(arg, "'", `'\''`) + "'"
}

// printable replaces what a terminal would act on, and cuts at wire.MaxShownCommand bytes.
func printable(s string) string {
	const more = "…"
	var b strings.Builder
	for i, r := range s {
		switch {
		case unicode.IsSpace(r):
			r = ' '
		case !unicode.IsPrint(r):
			r = utf8.RuneError
		}
		if b.Len()+utf8.RuneLen(r) > wire.MaxShownCommand-len(more) && len(s)-i > len(more) {
			b.WriteString(more)
			break
		}
		b.WriteRune(r)
	}
	return b.String()
}
