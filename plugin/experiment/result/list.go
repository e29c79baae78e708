package result

import (
	"errors"
	"fmt"
	"strings"
)

// A List is what a load check used of its list of requests.
type List struct {
	// Requests is the number of requests that it used, which it sent in turn.
	Requests int `json:"requests"`
	// Host is the host of a recording.
	Host string `json:"host,omitempty"`
	// LeftOut are the requests that it did not use.
	LeftOut []LeftOut `json:"leftOut,omitempty"`
}

// LeftOut is a number of requests that were left out, and why.
type LeftOut struct {
	Requests int    `json:"requests"`
	Why      string `json:"why"` // "to fonts.example.com", "whose body is not recorded"
}

// Bounds of valid results.
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

// FormatLeftOut formats what was left out, after a prefix; empty if nothing was.
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
