package main

import (
	"fmt"
	"strconv"
	"unicode/utf8"
)

// checkText refuses arguments that are not UTF-8. The protocol is JSON, which cannot carry them, and
// with replaced bytes the command would be another one.
func (f *execFlags) checkText(args []string) error {
	for i, arg := range args {
		what := "the name of the command"
		if i > 0 {
			what = "argument " + strconv.Itoa(i) + " of the command"
		}
		if err := checkUTF8(what, arg); err != nil {
			return err
		}
	}
	for i, pair := range f.env {
		if err := checkUTF8("--env number "+strconv.Itoa(i+1), pair); err != nil {
			return err
		}
	}
	for _, flag := range []struct{ name, value string }{
		{"--command", f.command}, {"--cwd", f.cwd}, {"--execution-id", f.executionID},
	} {
		if err := checkUTF8(flag.name, flag.value); err != nil {
			return err
		}
	}
	return nil
}

func checkUTF8(what, text string) error {
	if utf8.ValidString(text) {
		return nil
	}
	return usageError(fmt.Errorf("%s is not UTF-8 and cannot be sent: %q; nothing was run", what, text))
}
