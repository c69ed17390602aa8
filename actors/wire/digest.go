package wire

import (
	"crypto/sha256"
	"crypto/subtle"
)

// TokenDigest is the form in which a server keeps a token, be it a bearer token or a resume token.
// The type does not support ==, because the time of such a comparison would reveal how much of a
// guess is right.
type TokenDigest struct {
	_   [0]func() // makes the type incomparable
	sum [sha256.Size]byte
}

// DigestToken returns the digest of a token.
func DigestToken(token string) TokenDigest {
	return TokenDigest{sum: sha256.Sum256([]byte(token))}
}

// Equal reports whether both digests are of the same token. Its running time reveals nothing about
// either.
func (d TokenDigest) Equal(other TokenDigest) bool {
	return subtle.ConstantTimeCompare(d.sum[:], other.sum[:]) == 1
}
