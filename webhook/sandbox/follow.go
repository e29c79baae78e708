package sandbox

import (
	"encoding/json"
	"fmt"
)

// Followed is what the controller says of a fork that follows its baseline.
type Followed struct {
	// Generation is the baseline's (metadata.generation) that the fork was last laid on, or could not be.
	Generation int64 `json:"generation"`
	// Baseline is what AnnotationBaseline was then; empty where it could not be laid.
	Baseline string `json:"baseline,omitempty"`
	Time     string `json:"time"` // RFC 3339
	// Conflict says why it could not be; empty where it was.
	Conflict string `json:"conflict,omitempty"`
}

// FormatFollowed writes the value of AnnotationFollowed.
func FormatFollowed(f Followed) string {
	b, err := json.Marshal(f)
	if err != nil {
		panic(err) // a number and two strings always encode
	}
	return string(b)
}

// ParseFollowed reads the value of AnnotationFollowed.
func ParseFollowed(s string) (Followed, error) {
	var f Followed
	if err := json.Unmarshal([]byte(s), &f); err != nil {
		return Followed{}, fmt.Errorf("annotation %s: %w", AnnotationFollowed, err)
	}
	return f, nil
}
