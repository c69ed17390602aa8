package wire

import (
	"fmt"
	"strings"
	"testing"
)

func TestElementsCountsWhatIsOutsideOfStrings(t *testing.T) {
	for text, want := range map[string]int{
		``: 0, `{}`: 0, `[1,2,3]`: 2, `{"a":"b,c","d":[",",1]}`: 2, `{"a":"\",","b":1}`: 1, `["\\",","]`: 1,
		`"unfinished,`: 0, `"\`: 0, `[[1,2],{"a":1,"b":2}]`: 3,
	} {
		if got := Elements([]byte(text)); got != want {
			t.Errorf("%s: %d, want %d", text, got, want)
		}
	}
}

// TestParamsOfManyElementsAreRefused: an argument of no byte costs 3 bytes in JSON and 16 decoded, a
// variable more.
func TestParamsOfManyElementsAreRefused(t *testing.T) {
	execute := func(args int) []byte {
		return []byte(`{"jsonrpc":"2.0","id":7,"method":"execute","params":{"argv":["a"` +
			strings.Repeat(`,""`, args-1) + `]}}`)
	}
	if _, err := Decode(execute(MaxElements + 1)); err != nil {
		t.Errorf("as many as may be: %v", err)
	}
	req, err := Decode(execute(MaxElements + 2))
	if err == nil || err.Code != CodeInvalidParams || !strings.Contains(err.Message, fmt.Sprint(MaxElements)) {
		t.Errorf("one more: %v", err)
	}
	if req.ID.String() != "7" {
		t.Errorf("the refusal is for request %s", req.ID)
	}
	input := `{"jsonrpc":"2.0","id":7,"method":"input","params":{"execution_id":"x","data":"` +
		strings.Repeat(",", 1<<16) + `"}}`
	if _, err := Decode([]byte(input)); err != nil {
		t.Errorf("commas of input count as elements: %v", err)
	}
}
