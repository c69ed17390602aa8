package screen

import "slices"

//go:generate sh -c "node testdata/widths.mjs >widths.go"

// breakKind is what a character does at the borders of grapheme clusters, in the words of
// https://unicode.org/reports/tr29/#Grapheme_Cluster_Break_Property_Values.
type breakKind uint8

const (
	breakOther breakKind = iota
	breakPrepend
	breakExtend
	breakRegional
	breakSpacing
	breakL
	breakV
	breakT
	breakLV
	breakLVT
	breakJoiner
	breakPictographic
)

const firstSyllable, lastSyllable, finals = 0xac00, 0xd7a3, 28

// lookUp returns how a character joins others, and its columns.
func lookUp(r rune) (breakKind, int) {
	switch {
	case r < 0xa9:
		return breakOther, 1
	case r >= firstSyllable && r <= lastSyllable:
		if (r-firstSyllable)%finals == 0 {
			return breakLV, 2
		}
		return breakLVT, 2
	}
	i, found := slices.BinarySearchFunc(spans[:], r, func(span uint32, r rune) int { return int(span>>5) - int(r) })
	if !found {
		i--
	}
	if i < 0 {
		return breakOther, 1
	}
	return breakKind(spans[i] >> 1 & 15), int(spans[i]&1) + 1
}

// joined says whether a character of a kind joins one of another before it.
func joined(before, after breakKind) bool {
	switch after {
	case breakExtend, breakJoiner, breakSpacing:
		return true
	case breakPictographic:
		if before == breakJoiner {
			return true
		}
	case breakRegional:
		if before == breakRegional {
			return true
		}
	case breakL, breakLV, breakLVT:
		if before == breakL {
			return true
		}
	case breakV:
		if before == breakL || before == breakLV || before == breakV {
			return true
		}
	case breakT:
		if before >= breakV && before <= breakLVT {
			return true
		}
	default:
	}
	return before == breakPrepend
}
