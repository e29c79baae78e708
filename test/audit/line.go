package audit

import (
	"encoding/json"
	"regexp"
	"strings"
	"time"
)

var (
	// textLevel is the level in a line of slog's text handler.
	textLevel = regexp.MustCompile(`^time=\S+ level=([A-Z]+)`)
	// klogLevel begins a line of klog's own format.
	klogLevel = regexp.MustCompile(`^([EF])[0-9]{4} [0-9:.]+ +[0-9]+ `)
	// lostEvent is what client-go writes of an Event for which there is no namespace any more: whoever deletes a namespace ends
	// workloads in it, and what a controller has to say of that has no place to go.
	lostEvent = regexp.MustCompile(`because it is being terminated$|^namespaces "[^"]+" not found$`)
	// leaseAttempt and triedAgain are what client-go's leader election writes of an attempt at the lease that the end of its process, a
	// slow API server or a faster candidate broke off. It tries again; a lease that is lost ends the process, which is a finding.
	leaseAttempt = regexp.MustCompile(`^(Error retrieving lease lock|Failed to update lease|Failed to update lock)$`)
	triedAgain   = regexp.MustCompile(`(context canceled|context deadline exceeded|Client\.Timeout exceeded while awaiting headers\)|` +
		`Operation cannot be fulfilled on leases\.coordination\.k8s\.io "[^"]+": the object has been modified; ` +
		`please apply your changes to the latest version and try again)$`)
	// programError is how a program of ours says that it ends with an error.
	programError = regexp.MustCompile(`^(error|sandbox-router|sandbox-webhook): `)
	// goPanic begins what the Go runtime and net/http write of a panic.
	goPanic = regexp.MustCompile(`^(panic: |fatal error: |unexpected fault address |SIG[A-Z]+: )|http: panic serving|Observed a panic|panic in `)
)

// Line returns the finding that a line of a log is. It is no error whose level is below error, whatever it says.
func Line(s Source, at time.Time, text string) (Finding, bool) {
	f := Finding{Source: s, Time: at, Text: text}
	if strings.HasPrefix(text, "{") {
		var fields struct {
			Level      string `json:"level"`
			Msg        string `json:"msg"`
			Controller string `json:"controller"`
			Err        string `json:"err"`
		}
		if json.Unmarshal([]byte(text), &fields) == nil {
			switch {
			case goPanic.MatchString(fields.Msg):
				f.Kind = Panic
			case fields.Msg == "Server rejected event (will not retry!)" && lostEvent.MatchString(fields.Err):
			case leaseAttempt.MatchString(fields.Msg) && triedAgain.MatchString(fields.Err):
			case strings.HasPrefix(fields.Level, "ERROR"):
				f.Kind = ErrorLine
				if fields.Msg == "Reconciler error" {
					f.Controller = fields.Controller
				}
			}
			return f, f.Kind != ""
		}
	}
	if level := textLevel.FindStringSubmatch(text); level != nil {
		if level[1] == "ERROR" {
			f.Kind = ErrorLine
		}
		return f, f.Kind != ""
	}
	switch {
	case goPanic.MatchString(text):
		f.Kind = Panic
	case klogLevel.MatchString(text), programError.MatchString(text):
		f.Kind = ErrorLine
	}
	return f, f.Kind != ""
}
