package forks

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

func TestExpires_ByTheClustersDefault(t *testing.T) {
	now := time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)
	of := func(expires string) *corev1.ConfigMap {
		return &corev1.ConfigMap{Data: map[string]string{sandbox.DataExpires: expires}}
	}
	never, hour := time.Duration(0), time.Hour
	for name, tt := range map[string]struct {
		old       *corev1.ConfigMap
		byDefault *time.Duration
		want      string
	}{
		"new, not told":           {want: "2026-01-02T20:00:00Z"},
		"new":                     {byDefault: &hour, want: "2026-01-02T13:00:00Z"},
		"new, for ever":           {byDefault: &never},
		"renewed":                 {old: of("2026-01-02T12:30:00Z"), byDefault: &hour, want: "2026-01-02T13:00:00Z"},
		"longer already":          {old: of("2026-01-02T15:00:00Z"), byDefault: &hour, want: "2026-01-02T15:00:00Z"},
		"kept, where none is due": {old: of("2026-01-02T15:00:00Z"), byDefault: &never, want: "2026-01-02T15:00:00Z"},
		"for ever already":        {old: of(""), byDefault: &hour},
	} {
		got := ""
		if at := expires(&Options{Now: now}, tt.old, tt.byDefault); !at.IsZero() {
			got = at.Format(time.RFC3339)
		}
		if got != tt.want {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
	}
}
