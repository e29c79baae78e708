// Package progress tells a person what a long command is at, and for how long.
package progress

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

// Reporter prints one line a step, with the time the step took. While a step
// runs, a terminal shows its age every second; anything else (a log, CI) gets a
// line every half minute, so that a long step is never taken for a dead one.
// Its methods may be called from several goroutines.
type Reporter struct {
	mu       sync.Mutex
	out      io.Writer
	terminal bool
	beat     time.Duration
	pending  bool // a line without its end is on the terminal
}

// New returns a Reporter that prints to out.
func New(out io.Writer) *Reporter {
	r := &Reporter{out: out, beat: 30 * time.Second}
	if f, ok := out.(*os.File); ok {
		if info, err := f.Stat(); err == nil && info.Mode()&os.ModeCharDevice != 0 && f.Name() != os.DevNull {
			r.terminal, r.beat = true, time.Second
		}
	}
	return r
}

// Say prints a line.
func (r *Reporter) Say(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.clear()
	fmt.Fprintf(r.out, format+"\n", args...)
}

// Step runs do and prints what it was and how long it took. Steps that are over
// within a tenth of a second go unsaid: there was nothing to wait for.
func (r *Reporter) Step(what string, do func() error) error {
	start := time.Now()
	done := make(chan error, 1)
	go func() { done <- do() }()
	ticker := time.NewTicker(r.beat)
	defer ticker.Stop()
	for {
		select {
		case err := <-done:
			took := time.Since(start)
			switch {
			case err != nil:
				r.Say("%s: failed after %s", what, Round(took))
			case took > 100*time.Millisecond:
				r.Say("%s: %s", what, Round(took))
			}
			return err
		case <-ticker.C:
			r.still(what, time.Since(start))
		}
	}
}

func (r *Reporter) still(what string, age time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.terminal {
		r.clear()
		fmt.Fprintf(r.out, "%s ... %s", what, age.Round(time.Second))
		r.pending = true
		return
	}
	fmt.Fprintf(r.out, "%s ... %s so far\n", what, age.Round(time.Second))
}

// clear takes the unfinished line off the terminal. r.mu is held.
func (r *Reporter) clear() {
	if r.pending {
		fmt.Fprint(r.out, "\r\x1b[K")
		r.pending = false
	}
}

// Round cuts a duration to what a person reads: tenths of a second, and whole
// seconds from a minute on.
func Round(d time.Duration) time.Duration {
	if d >= time.Minute {
		return d.Round(time.Second)
	}
	return d.Round(100 * time.Millisecond)
}
