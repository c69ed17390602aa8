package wire

import (
	"encoding/json"
	"errors"
)

// NullID answers a message whose id could not be read.
var NullID = ID("null")

// MarshalJSON returns the id as it was sent, or null if there is none.
func (id ID) MarshalJSON() ([]byte, error) {
	if len(id) == 0 {
		return []byte("null"), nil
	}
	return id, nil
}

// UnmarshalJSON keeps a copy of the id's text.
func (id *ID) UnmarshalJSON(b []byte) error {
	if id == nil {
		return errors.New("wire: UnmarshalJSON on a nil ID")
	}
	*id = append((*id)[:0], b...)
	return nil
}

func (id ID) String() string { return string(id) }

var (
	_ json.Marshaler   = ID(nil)
	_ json.Unmarshaler = (*ID)(nil)
)
