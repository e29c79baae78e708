package sandbox

import (
	"encoding/json"
	"fmt"
)

// Followed is the result of the last rebase of a fork that follows its baseline.
type Followed struct {
	// Generation is the baseline's metadata.generation at that rebase.
	Generation int64 `json:"generation"`
	// Baseline was the value of AnnotationBaseline then; empty if the rebase failed.
	Baseline string `json:"baseline,omitempty"`
	Time     string `json:"time"` // RFC 3339
	// Conflict is why the rebase failed; empty if it succeeded.
	Conflict string `json:"conflict,omitempty"`
}

// FormatFollowed formats the value of AnnotationFollowed.
func FormatFollowed(f Followed) string {
	b, err := json.Marshal(f)
	if err != nil {
		panic(err) // a number and two strings always encode
	}
	return string(b)
}

// ParseFollowed parses the value of AnnotationFollowed.
func ParseFollowed(s string) (Followed, error) {
	var f Followed
	if err := json.Unmarshal([]byte(s), &f); err != nil {
		return Followed{}, fmt.Errorf("annotation %s: %w", AnnotationFollowed, err)
	}
	return f, nil
}
