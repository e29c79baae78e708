package sandboxes

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

func TestExtend(t *testing.T) {
	now := time.Date(2026, 1, 2, 12, 0, 0, 500, time.UTC)
	hours := func(n int) *time.Duration { d := time.Duration(n) * time.Hour; return &d }
	for name, tt := range map[string]struct {
		before         string // "": never
		ttl, byDefault *time.Duration
		want           string
		unchanged      bool
	}{
		"by the default":              {before: "2026-01-02T13:00:00Z", want: "2026-01-02T20:00:00Z"},
		"by the cluster's default":    {before: "2026-01-02T13:00:00Z", byDefault: hours(2), want: "2026-01-02T14:00:00Z"},
		"by a default of for ever":    {before: "2026-01-02T13:00:00Z", byDefault: hours(0)},
		"by a time":                   {before: "2026-01-02T13:00:00Z", ttl: hours(48), byDefault: hours(2), want: "2026-01-04T12:00:00Z"},
		"for ever":                    {before: "2026-01-02T13:00:00Z", ttl: hours(0)},
		"by less than it has":         {before: "2026-01-02T13:00:00Z", ttl: hours(1), want: "2026-01-02T13:00:00Z", unchanged: true},
		"of one that lives for ever":  {ttl: hours(1), unchanged: true},
		"of one that is over already": {before: "2026-01-02T11:00:00Z", ttl: hours(1), want: "2026-01-02T13:00:00Z"},
		"of what can't be read":       {before: "tomorrow", ttl: hours(1), want: "2026-01-02T13:00:00Z"},
	} {
		t.Run(name, func(t *testing.T) {
			cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{UID: "u", ResourceVersion: "7"}, Data: map[string]string{sandbox.DataKey: "k"}}
			if tt.before != "" {
				cm.Data[sandbox.DataExpires] = tt.before
			}
			e, err := Extend(&Sandbox{Name: "pr-1", ConfigMap: cm}, tt.ttl, tt.byDefault, now)
			if err != nil {
				t.Fatal(err)
			}
			if got := e.Extended().Data[sandbox.DataExpires]; got != tt.want || e.Unchanged != tt.unchanged || cm.Data[sandbox.DataExpires] != tt.before {
				t.Errorf("expires %q, unchanged %t; want %q, %t", got, e.Unchanged, tt.want, tt.unchanged)
			}
			want := `{"data":{"expires":"` + tt.want + `"},"metadata":{"resourceVersion":"7","uid":"u"}}`
			if tt.want == "" {
				want = `{"data":{"expires":null},"metadata":{"resourceVersion":"7","uid":"u"}}`
			}
			if got := string(e.Patch()); !tt.unchanged && got != want {
				t.Errorf("patch %s, want %s", got, want)
			}
		})
	}
}

func TestExtend_RefusesWhatIsHalfThere(t *testing.T) {
	gone := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{DeletionTimestamp: &metav1.Time{}}}
	for want, s := range map[string]*Sandbox{`has lost its ConfigMap`: {Name: "pr-1"}, `is being deleted`: {Name: "pr-1", ConfigMap: gone}} {
		if _, err := Extend(s, nil, nil, time.Now()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}
