package wire

import (
	"reflect"
	"strconv"
	"testing"
)

// TestEveryByteOfADigestCounts: tokens whose digests agree in most bytes are other tokens all the
// same.
func TestEveryByteOfADigestCounts(t *testing.T) {
	token := DigestToken("token")
	if !token.Equal(DigestToken("token")) {
		t.Error("a token is not itself")
	}
	for i := range token.sum {
		other := DigestToken("token")
		other.sum[i] ^= 1
		if token.Equal(other) || other.Equal(token) {
			t.Errorf("byte %d does not count", i)
		}
	}
	for i := range 1000 {
		if token.Equal(DigestToken(strconv.Itoa(i))) || token.Equal(DigestToken("token"+strconv.Itoa(i))) {
			t.Errorf("%d passes for another token", i)
		}
	}
}

// TestDigestsCannotBeComparedOtherwise: == would compile, and tell by its time how much of a guess
// is right.
func TestDigestsCannotBeComparedOtherwise(t *testing.T) {
	if reflect.TypeOf(DigestToken("x")).Comparable() {
		t.Error("digests can be compared with ==")
	}
}
