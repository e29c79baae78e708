package live

import (
	"strings"
	"testing"

	"github.com/kubectl-sandbox/kubectl-sandbox/test/ordinary"
)

func TestReadStatus(t *testing.T) {
	const condition = `{"kind":"SandboxStatus","conditions":[{"type":"UpToDate","status":"True"},{"type":"Routed","status":"STATUS","reason":"R","message":"m","command":"c"}]}`
	for status, routed := range map[string]bool{"True": true, "False": false, "Unknown": false} {
		var got ordinary.Truth
		if err := read(strings.Replace(condition, "STATUS", status, 1), &got); err != nil {
			t.Error(err)
		}
		if want := (ordinary.Truth{Routed: routed, Reason: "R", Message: "m", Command: "c"}); got != want {
			t.Errorf("%s: got %+v", status, got)
		}
	}
	for _, bad := range []string{"", "{}", `{"kind":"List"}`, `{"kind":"SandboxStatus"}`, strings.Replace(condition, "SandboxStatus", "Status", 1)} {
		if err := read(bad, &ordinary.Truth{}); err == nil {
			t.Errorf("%q is read", bad)
		}
	}
}
