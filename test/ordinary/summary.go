package ordinary

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// A Found is a sequence that broke promises, as short as it could be made.
type Found struct {
	Name       string // of the file that it is kept in
	Sequence   Sequence
	Violations []Violation
	Again      bool // performed again, it broke one of the same rules
}

// A Summary is what a run did and found.
type Summary struct {
	Seed      uint64
	Took      time.Duration
	Lanes     int // sequences at a time
	Sequences int
	Requests  map[string]int // by who sent them
	Truths    int
	Fixes     int // commands that were printed and run
	Kinds     map[Kind]int
	Failed    map[Kind]int // operations that failed on the twin as well
	Found     []Found
}

// NewSummary returns the summary of a run that has done nothing yet.
func NewSummary(seed uint64, lanes int) *Summary {
	return &Summary{Seed: seed, Lanes: lanes, Requests: map[string]int{}, Kinds: map[Kind]int{}, Failed: map[Kind]int{}}
}

// Add counts what was done in a sequence.
func (s *Summary) Add(r Record) {
	s.Sequences++
	s.Requests["unkeyed"] += len(r.Unkeyed)
	s.Requests["twin"] += len(r.Twin)
	s.Requests["keyed"] += len(r.Keyed)
	s.Truths += len(r.Truths)
	for _, step := range r.Steps {
		s.Kinds[step.Operation.Kind]++
		if step.Err != "" && step.TwinErr != "" {
			s.Failed[step.Operation.Kind]++
		}
		if step.Fix != nil && step.Fix.Command != "" {
			s.Fixes++
		}
	}
}

// Violations returns how many promises were broken.
func (s *Summary) Violations() int {
	n := 0
	for _, f := range s.Found {
		n += len(f.Violations)
	}
	return n
}

// Line is the summary in one line.
func (s *Summary) Line() string {
	operations := 0
	for _, n := range s.Kinds {
		operations += n
	}
	return fmt.Sprintf("seed %d, %s: %d sequences, %d operations of %d kinds, %d requests without a key (%d to twins), %d with one, %d answers of status, %d printed commands run: %d violations",
		s.Seed, s.Took.Round(time.Second), s.Sequences, operations, len(s.Kinds), s.Requests["unkeyed"]+s.Requests["twin"], s.Requests["twin"],
		s.Requests["keyed"], s.Truths, s.Fixes, s.Violations())
}

// Markdown is the summary for the document beside the test.
func (s *Summary) Markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s. %d sequences at a time.\n\n| operation | performed | failed on the twin as well |\n|---|---|---|\n", s.Line(), s.Lanes)
	for _, k := range slices.Sorted(maps.Keys(s.Kinds)) {
		fmt.Fprintf(&b, "| %s | %d | %d |\n", k, s.Kinds[k], s.Failed[k])
	}
	for _, f := range s.Found {
		again := "not broken when it was performed again"
		if f.Again {
			again = "broken again"
		}
		fmt.Fprintf(&b, "\n%s (%s):\n\n```\n%s```\n\n", f.Name, again, f.Sequence.Encode())
		for _, v := range f.Violations {
			fmt.Fprintf(&b, "- %s\n", v)
		}
	}
	return b.String()
}
