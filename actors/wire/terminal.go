package wire

// checkTerminal fills in what a terminal implies, and refuses what it excludes.
func (p *executeParams) checkTerminal(out *ExecuteParams) *Error {
	t := out.Terminal
	if t == nil {
		return nil
	}
	if err := checkSize("terminal.", t.Cols, t.Rows); err != nil {
		return err
	}
	if err := CheckTerm(t.Term); err != nil {
		return err
	}
	if out.Framing == FramingLines {
		return Errorf(CodeInvalidParams, "framing %q has no meaning with a terminal: leave it out", FramingLines)
	}
	switch out.Retain {
	case "", RetainLast:
	default:
		return Errorf(CodeInvalidParams, "retain %s is refused with a terminal: leave it out, or give %q",
			quote(string(out.Retain)), RetainLast)
	}
	out.Stdin, out.Framing, out.Retain = true, FramingRaw, RetainLast
	return nil
}

func checkSize(path string, cols, rows int) *Error {
	if cols < 1 || cols > MaxCols {
		return Errorf(CodeInvalidParams, "%scols must be a number of columns, 1 to %d", path, MaxCols)
	}
	if rows < 1 || rows > MaxRows {
		return Errorf(CodeInvalidParams, "%srows must be a number of rows, 1 to %d", path, MaxRows)
	}
	return nil
}

// CheckTerm reports why Terminal.Term cannot be this. It accepts the names of terminfo entries: a slash
// would make a path of one.
func CheckTerm(term string) *Error {
	ok := len(term) <= MaxTerm
	for i := 0; ok && i < len(term); i++ {
		c := term[i]
		ok = isAlphanumeric(c) || i > 0 && (c == '.' || c == '_' || c == '+' || c == '-')
	}
	if !ok {
		return Errorf(CodeInvalidParams,
			"terminal.term %s must have at most %d of A-Z a-z 0-9 . _ + - and begin with a letter or digit", quote(term), MaxTerm)
	}
	return nil
}

type resizeParams struct{ ResizeParams }

func (p *resizeParams) check() (any, *Error) {
	if err := needExecutionID(p.ExecutionID); err != nil {
		return nil, err
	}
	if err := checkSize("", p.Cols, p.Rows); err != nil {
		return nil, err
	}
	return &p.ResizeParams, nil
}
