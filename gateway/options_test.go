package gateway

import (
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/troupe-dev/troupe/actors/wire"
)

// TestSessionOptionsReachTheEngine: what a client asks of its session, and what is refused before there is one.
func TestSessionOptionsReachTheEngine(t *testing.T) {
	var many strings.Builder
	for i := range wire.MaxLabels + 1 {
		fmt.Fprintf(&many, "&label=k%d=v", i)
	}
	for _, tc := range []struct {
		path, refused string // refused: part of the answer; empty: the session is opened
		want          wire.SessionOptions
	}{
		{"/ws", "", wire.SessionOptions{}},
		{"/ws?name=nightly&label=team=build&label=empty=&resume_window=90.5", "", wire.SessionOptions{
			Name: "nightly", Labels: map[string]string{"team": "build", "empty": ""}, ResumeWindow: 90*time.Second + time.Second/2,
		}},
		{"/ws?resume_window=3600", "", wire.SessionOptions{ResumeWindow: time.Hour}},
		{"/ws/mcp?name=a&label=k=v", "", wire.SessionOptions{Name: "a", Labels: map[string]string{"k": "v"}}},
		{"/ws?resume_window=3601", "from 1 to 3600, this server's idle timeout", wire.SessionOptions{}},
		{"/ws?resume_window=0.5", "from 1 to 3600", wire.SessionOptions{}},
		{"/ws?resume_window=NaN", "from 1 to 3600", wire.SessionOptions{}},
		{"/ws?resume_window=1h", "give seconds", wire.SessionOptions{}},
		{"/ws/mcp?resume_window=60", "this session ends with its connection", wire.SessionOptions{}},
		{"/ws?name=a&name=b", "may be given once", wire.SessionOptions{}},
		{"/ws?name=", "name is empty", wire.SessionOptions{}},
		{"/ws?name=Nightly", `name \"Nightly\": use 1 to 63`, wire.SessionOptions{}},
		{"/ws?label=team", `label \"team\": write key=value`, wire.SessionOptions{}},
		{"/ws?label=team=a&label=team=b", "given twice", wire.SessionOptions{}},
		{"/ws?label=team=a%20b", `value \"a b\" of label team`, wire.SessionOptions{}},
		{"/ws?label=" + strings.Repeat("k", 64) + "=v", "label key", wire.SessionOptions{}},
		{"/ws?x" + many.String(), "17 labels", wire.SessionOptions{}},
		{"/ws?session=s&name=a", "are for a new session", wire.SessionOptions{}},
	} {
		f := start(t, nil)
		f.engine.mu.Lock()
		f.engine.stats.MaxResumeWindow = time.Hour
		f.engine.mu.Unlock()
		status, body := upgrade(t, f, tc.path)
		if tc.refused != "" {
			if status != http.StatusBadRequest || !strings.Contains(body, tc.refused) {
				t.Errorf("%s: %d %s, want 400 %s", tc.path, status, body, tc.refused)
			}
			continue
		}
		if status != http.StatusSwitchingProtocols {
			t.Errorf("%s: %d %s", tc.path, status, body)
			continue
		}
		if c := <-f.engine.conns; !reflect.DeepEqual(c.req.Options, tc.want) {
			t.Errorf("%s: the engine is asked for %+v, want %+v", tc.path, c.req.Options, tc.want)
		}
	}
}
