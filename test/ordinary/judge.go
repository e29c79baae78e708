package ordinary

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// A Rule is a promise that can be broken.
type Rule string

// Rules.
const (
	// DeployFailed: an operation of the owner failed that succeeded on the twin.
	DeployFailed Rule = "deploy-failed"
	// UnkeyedFailed: a request without a key failed that did not fail on the twin.
	UnkeyedFailed Rule = "unkeyed-failed"
	// KeyedToBaseline: the baseline answered a keyed request, while the truth said Routed or gave a reason for which it must not.
	KeyedToBaseline Rule = "keyed-to-baseline"
	// KeyedFailed: a keyed request failed while the truth said Routed.
	KeyedFailed Rule = "keyed-failed"
	// Silent: routers refused keyed requests, and the truth went on saying Routed.
	Silent Rule = "silent"
	// NoReason: the truth said that requests do not reach the fork, without a reason; or it gave no answer.
	NoReason Rule = "no-reason"
	// NotFixed: requests did not reach the fork any more, and no command was printed, or it did not fix that.
	NotFixed Rule = "not-fixed"
	// CommandFailed: a command of the product failed where nothing was against it, or succeeded where it had not done what it says.
	CommandFailed Rule = "command-failed"
)

// A Violation is a promise broken in a step.
type Violation struct {
	Rule   Rule
	Step   int
	Detail string
}

func (v Violation) String() string {
	return fmt.Sprintf("%s in step %d: %s", v.Rule, v.Step+1, v.Detail)
}

// Judge returns the promises that were broken, in the order of the steps, each rule at most once a step.
func Judge(r Record) []Violation {
	var found []Violation
	for i, s := range r.Steps {
		found = append(found, r.judgeOperation(i, s)...)
		if s.Diverged {
			continue
		}
		found = append(found, r.judgeUnkeyed(i, s)...)
		found = append(found, r.judgeKeyed(i, s)...)
		found = append(found, r.judgeTruth(i, s)...)
	}
	return found
}

func (r Record) judgeOperation(i int, s Step) []Violation {
	switch k := s.Operation.Kind; {
	case k == ForkCrash && s.Err == "":
		return []Violation{{CommandFailed, i, "fork succeeded with an image that crashes at its start"}}
	case s.Err == "" || k == ForkCrash:
	case k == Unroute: // refused while there is a fork
		if s.Operation.Choice == 1 || !s.After.Forked {
			return []Violation{{CommandFailed, i, s.Err}}
		}
	case s.Operation.Forks():
		// Of what was made anew it may ask for routing again, if its command then does all that is needed: see Fix.
		if s.After.Routable() && !(s.After.Remade && s.Fix != nil) {
			return []Violation{{CommandFailed, i, s.Err}}
		}
	case s.Operation.Own():
		return []Violation{{CommandFailed, i, s.Err}}
	case s.TwinErr == "":
		return []Violation{{DeployFailed, i, s.Err}}
	}
	return nil
}

func (r Record) judgeUnkeyed(i int, s Step) []Violation {
	ours, twins := wrong(during(r.Unkeyed, s.Begin, s.End)), wrong(during(r.Twin, s.Begin, s.End))
	if len(twins) > 0 {
		last := twins[len(twins)-1].End.Add(Slack)
		ours = slices.DeleteFunc(ours, func(q Request) bool { return q.Outcome == Failed && q.At.Before(last) })
	}
	if len(ours) == 0 {
		return nil
	}
	return []Violation{{UnkeyedFailed, i, fmt.Sprintf("%d of %d requests, on the twin %d of %d: %s", len(ours), len(during(r.Unkeyed, s.Begin, s.End)),
		len(twins), len(during(r.Twin, s.Begin, s.End)), s.about(ours))}}
}

// about describes the first of some requests.
func (s Step) about(all []Request) string {
	q := all[0]
	return fmt.Sprintf("the first %s into the step, the last %s later: %s %s", round(q.At.Sub(s.Begin)), round(all[len(all)-1].At.Sub(q.At)), q.Outcome, q.Detail)
}

func round(d time.Duration) time.Duration { return d.Round(10 * time.Millisecond) }

// judgeKeyed holds keyed requests that the fork did not serve to what the product said at the time.
func (r Record) judgeKeyed(i int, s Step) []Violation {
	broken := map[Rule][]Request{}
	for _, run := range runs(r.Keyed) {
		for _, q := range during(run, s.Begin, s.End) {
			if !r.exists(q) {
				continue
			}
			if rule := r.ruleOf(s, run, q); rule != "" {
				broken[rule] = append(broken[rule], q)
			}
		}
	}
	var found []Violation
	for _, rule := range []Rule{KeyedToBaseline, KeyedFailed, Silent} {
		if all := broken[rule]; len(all) > 0 {
			found = append(found, Violation{rule, i, fmt.Sprintf("%d of %d requests, %s; status said %s", len(all), len(during(r.Keyed, s.Begin, s.End)), s.about(all), r.said(all[0]))})
		}
	}
	return found
}

// ruleOf returns the rule that a request breaks which the fork did not serve, one of a run of such.
func (r Record) ruleOf(s Step, run []Request, q Request) Rule {
	long := run[len(run)-1].End.Sub(run[0].At) > TellWithin
	told, past := r.told(q)
	switch q.Outcome {
	case Baseline:
		switch {
		case s.After.ToBaseline && (told || !long): // as the fork's user wants it
		case !told || !s.After.ToBaseline && !past:
			return KeyedToBaseline
		}
	case Refused: // with the reason: whoever sent it knows
		if long && !told {
			return Silent
		}
	case Failed, Stray, Served:
		// Where nobody reaches the application, for a moment, there is nothing to say.
		alike := slices.ContainsFunc(wrong(during(r.Unkeyed, q.At.Add(-2*time.Second), q.End.Add(2*time.Second))), func(Request) bool { return true })
		if !told && (long || !alike) {
			return KeyedFailed
		}
	}
	return ""
}

// passesBy says that the reason is one for which requests come to the baseline without passing a router, which alone could refuse
// them.
func passesBy(reason string) bool {
	switch reason {
	case "", // as long as the product gives none
		"RouterMissing", "RouterDeclined", "ServiceBypassesRouters", "BaselineNotRouted", "BaselineGone", "ServiceShared", "ProtocolUnroutable":
		return true
	}
	return false
}

// told says that the product said, at the time of the request or soon after, that not all requests reach the fork, and why; and whether
// it gave a reason then for which requests pass the routers by.
func (r Record) told(q Request) (told, past bool) {
	for _, t := range r.Truths {
		if t.Err == "" && !t.Routed && t.End.After(q.At.Add(-PollEvery)) && t.Begin.Before(q.End.Add(TellWithin)) {
			told, past = true, past || passesBy(t.Reason)
		}
	}
	return told, past
}

// said describes what the product said at the time of a request.
func (r Record) said(q Request) string {
	var said []string
	for _, t := range r.Truths {
		if t.End.After(q.At.Add(-PollEvery)) && t.Begin.Before(q.End.Add(TellWithin)) {
			word := strings.TrimSpace(t.Reason + " " + t.Message + t.Err)
			if t.Routed {
				word = "Routed"
			}
			if len(said) == 0 || said[len(said)-1] != word {
				said = append(said, word)
			}
		}
	}
	if len(said) == 0 {
		return "nothing"
	}
	return strings.Join(said, ", then ")
}

// exists says that there was a sandbox all the while that the request took.
func (r Record) exists(q Request) bool {
	return slices.ContainsFunc(r.Sandbox, func(s Span) bool { return !q.At.Before(s.Begin) && !q.End.After(s.End) })
}

func (r Record) judgeTruth(i int, s Step) []Violation {
	var found []Violation
	for _, t := range r.Truths {
		if t.Begin.Before(s.Begin) || !t.Begin.Before(s.End) || t.Routed || t.Message != "" {
			continue
		}
		found = append(found, Violation{NoReason, i, fmt.Sprintf("status, %s into the step: %s", round(t.Begin.Sub(s.Begin)), strings.TrimSpace(t.Reason+" "+t.Err))})
		break
	}
	if f := s.Fix; f != nil && !f.Worked {
		detail := "no command is printed: " + f.Err
		if f.Command != "" {
			detail = fmt.Sprintf("%q was run: %s", f.Command, f.Err)
		}
		found = append(found, Violation{NotFixed, i, detail})
	}
	return found
}

// runs splits off the runs of requests that were not served, one after another.
func runs(all []Request) [][]Request {
	var found [][]Request
	open := false
	for i, q := range all {
		switch {
		case q.Outcome == Served:
			open = false
		case open:
			found[len(found)-1] = all[i-len(found[len(found)-1]) : i+1]
		default:
			found, open = append(found, all[i:i+1]), true
		}
	}
	return found
}

func during(all []Request, begin, end time.Time) []Request {
	var found []Request
	for _, q := range all {
		if !q.At.Before(begin) && q.At.Before(end) {
			found = append(found, q)
		}
	}
	return found
}

func wrong(all []Request) []Request {
	return slices.DeleteFunc(slices.Clone(all), func(q Request) bool { return q.Outcome == Served })
}
