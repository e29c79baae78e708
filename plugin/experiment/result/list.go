package result

import (
	"errors"
	"fmt"
	"strings"
)

// A List is what a load check took of the list of requests that it was given.
type List struct {
	// Requests is how many it took, which it sent in turn.
	Requests int `json:"requests"`
	// Host is the one that they were recorded of, where the list was a recording.
	Host string `json:"host,omitempty"`
	// LeftOut are those that it did not take.
	LeftOut []LeftOut `json:"leftOut,omitempty"`
}

// LeftOut is how many requests were left out, and which these were.
type LeftOut struct {
	Requests int    `json:"requests"`
	Why      string `json:"why"` // "to fonts.example.com", "whose body is not recorded"
}

// Bounds of what is read.
const (
	maxLeftOut = 32
	maxWhy     = 200 // bytes
)

func (l List) validate() error {
	if l.Requests < 0 || len(l.Host) > maxWhy || len(l.LeftOut) > maxLeftOut {
		return errors.New("what it says of its list is out of bounds")
	}
	for _, o := range l.LeftOut {
		if o.Requests < 0 || len(o.Why) > maxWhy {
			return errors.New("what it says of requests that were left out is out of bounds")
		}
	}
	return nil
}

// FormatLeftOut says what was left out, after a prefix; nothing where nothing was.
func FormatLeftOut(prefix string, all []LeftOut) string {
	if len(all) == 0 {
		return ""
	}
	parts := make([]string, len(all))
	for i, o := range all {
		parts[i] = fmt.Sprintf("%d %s", o.Requests, o.Why)
	}
	return prefix + "left out: " + strings.Join(parts, ", ")
}
