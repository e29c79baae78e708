package cluster

import (
	"bufio"
	"context"
	"io"
	"slices"
	"strings"
	"time"
	"unicode"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// PrintableLines returns the non-empty lines of an app's output without control characters, because they go to a
// terminal.
func PrintableLines(r io.Reader) []string {
	var out []string
	for s := bufio.NewScanner(r); s.Scan(); {
		line := strings.Map(func(r rune) rune {
			switch {
			case r == '\t':
				return ' '
			case !unicode.IsPrint(r):
				return -1
			}
			return r
		}, s.Text())
		if strings.TrimSpace(line) != "" {
			out = append(out, line)
		}
	}
	return out
}

// LastWarning returns the latest warning among the events that a field selector selects; empty if there is none, or
// the caller may not read events.
func LastWarning(ctx context.Context, c *Client, namespace, events string) string {
	list, err := c.Kube.CoreV1().Events(namespace).List(ctx, metav1.ListOptions{FieldSelector: "type=Warning," + events})
	if err != nil || len(list.Items) == 0 {
		return ""
	}
	last := slices.MaxFunc(list.Items, func(a, b corev1.Event) int { return EventTime(a).Compare(EventTime(b)) })
	lines := PrintableLines(strings.NewReader(last.Message))
	if len(lines) == 0 {
		return ""
	}
	return lines[0]
}

// EventTime returns when an event was last seen.
func EventTime(e corev1.Event) time.Time {
	if e.Series != nil {
		return e.Series.LastObservedTime.Time
	}
	if !e.LastTimestamp.IsZero() {
		return e.LastTimestamp.Time
	}
	return e.EventTime.Time
}
