package ordinary

import "time"

// Bounds of what is promised, and of what a comparison of two runs can tell.
const (
	// TellWithin is how soon the product says that requests do not reach a fork, and why.
	TellWithin = 10 * time.Second
	// PollEvery is how often it is asked.
	PollEvery = 2 * time.Second
	// Slack is how much longer an outage that the twin has as well may last beside a router, which starts before the app does.
	Slack = 10 * time.Second
)

// An Outcome is what became of a request.
type Outcome int

// Outcomes.
const (
	Served   Outcome = iota // by whom it was for: the fork if it was keyed, else the baseline
	Baseline                // it was keyed, and the baseline answered it
	Refused                 // a router answered with 503 and a reason
	Stray                   // it was not keyed, and a fork answered it
	Failed                  // anything else: no connection, no answer, an error
)

func (o Outcome) String() string {
	return []string{"served", "answered by the baseline", "refused", "answered by a fork", "failed"}[o]
}

// A Request is one that a client sent.
type Request struct {
	At, End time.Time
	Outcome Outcome
	Detail  string
}

// A Truth is one answer of the product about a sandbox.
type Truth struct {
	Begin, End time.Time
	Routed     bool
	Reason     string // a code
	Message    string
	Command    string // that fixes it
	Err        string // why there is no answer
}

// A Fix is the printed command, run.
type Fix struct {
	Command string
	Err     string
	Worked  bool // the product said soon after that requests reach the fork
}

// A Step is one operation as it was performed, on both applications at once.
type Step struct {
	Operation Operation
	After     State
	// The step lasts from Begin to End; the operation itself was done at Done, and the rest was spent watching.
	Begin, Done, End time.Time
	Err, TwinErr     string // of the operation
	// Diverged: the operation failed on both, and changed the Service's port on one of them alone. What follows can't be compared.
	Diverged bool
	// Fix is set where requests did not reach the fork after the step, though nothing was done against that.
	Fix *Fix
}

// A Span is a time in which a sandbox had been made and nobody had begun to delete it.
type Span struct{ Begin, End time.Time }

// A Record is what was observed of one sequence.
type Record struct {
	Sequence Sequence
	Steps    []Step
	Unkeyed  []Request // sent to the application with the product
	Twin     []Request // sent to the one without
	Keyed    []Request
	Truths   []Truth
	Sandbox  []Span
}
