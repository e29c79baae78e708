// Package experiment decides about experiments: it derives verdicts from the evidence of the Jobs that package suite
// creates, and a report from the verdicts. It is pure: it accesses no cluster, no clock and no file.
package experiment

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/route"
)

// An Outcome is the result of a check, a variant or an experiment.
type Outcome string

// Outcomes.
const (
	Passed       Outcome = "passed"
	Failed       Outcome = "failed"
	Inconclusive Outcome = "inconclusive"
)

// A Code says why something has not passed. Codes are stable: scripts use them.
type Code string

// Codes of failures. They are the variant's fault if the check's requests reached its fork and nothing else.
const (
	TestFailed Code = "test-failed" // the test says so, by its exit status
	TimedOut   Code = "timed-out"   // the test did not end within its time

	BudgetMissed   Code = "budget-missed"   // it is slower, or fails more, than is allowed
	ContractBroken Code = "contract-broken" // callers of the baseline would break
	Bystander      Code = "bystander-fails" // a workload that is not forked fails more of its requests than of the baseline's
)

// Codes of inconclusive verdicts.
const (
	NotFinished     Code = "not-finished"      // the Job has not ended
	NotRun          Code = "not-run"           // the test did not come to an end of its own: no image, no room, no node
	NotInjected     Code = "not-injected"      // admission gave the check's pod no router
	NotReported     Code = "not-reported"      // the check's router did not report what it sent
	NothingSent     Code = "nothing-sent"      // the test sent no request by its router
	OtherKey        Code = "other-key"         // the test's requests carried another key
	NotReached      Code = "fork-not-reached"  // no request with the key came to the fork's workload
	FellBack        Code = "fell-back"         // the baseline answered in place of the fork
	Unanswered      Code = "fork-unanswered"   // the fork took requests, and none was answered to the test
	Refused         Code = "refused"           // requests for the fork were refused, as none of its pods was ready
	RouterMissing   Code = "baseline-unrouted" // a ready pod of the baseline had no router
	NotCounted      Code = "not-counted"       // the routers' counts could not be had
	RouterLost      Code = "router-lost"       // a router ended within the window, and what it had counted may be lost
	SandboxGone     Code = "sandbox-gone"      // the sandbox expired, was deleted or was recreated
	ForkGone        Code = "fork-gone"         // the same of a fork
	ForkNotReady    Code = "fork-not-ready"    // the fork was not ready all the time
	ForkRestarted   Code = "fork-restarted"    // a pod of the fork was restarted or replaced
	ForkChanged     Code = "fork-changed"      // the fork was updated or rebased
	DigestMismatch  Code = "digest-mismatch"   // what ran is not what was requested, or changed during the check
	ForkUntested    Code = "fork-untested"     // of a variant: no check that passed reached one of its forks
	TooNoisy        Code = "too-noisy"         // the baseline differs from itself
	TooFew          Code = "too-few-requests"  // for a budget's metric to be measured
	TooClose        Code = "too-close"         // to a budget: more requests would decide it
	NothingCompared Code = "nothing-compared"  // the contract has no operation that could be looked at
	NotForked       Code = "not-forked"        // of a variant: it could not be forked
	ChecksMissing   Code = "checks-missing"    // of a variant: not all its checks have run
)

// A Reason is one thing that keeps a check or a variant from passing.
type Reason struct {
	Code    Code   `json:"code"`
	Message string `json:"message"`         // one clause for people
	Fault   Fault  `json:"fault,omitempty"` // whose it is, where that is known
	Cause   string `json:"cause,omitempty"` // of a test that did not run: the code of its pod's state, as of a fork's
}

// String returns "CODE: MESSAGE (fault: FAULT; cause: CAUSE)".
func (r Reason) String() string { return string(r.Code) + ": " + r.Text() }

// Text returns "MESSAGE (fault: FAULT; cause: CAUSE)".
func (r Reason) Text() string {
	var more []string
	if r.Fault != "" {
		more = append(more, "fault: "+string(r.Fault))
	}
	if r.Cause != "" {
		more = append(more, "cause: "+r.Cause)
	}
	if len(more) == 0 {
		return r.Message
	}
	return r.Message + " (" + strings.Join(more, "; ") + ")"
}

// A Verdict is the outcome of one check of one variant, and why. Every outcome but Passed has a reason.
type Verdict struct {
	Outcome Outcome  `json:"outcome"`
	Reasons []Reason `json:"reasons,omitempty"`
}

// Judge returns a verdict. A check passes only if its test did, and all evidence shows that the fork served at least
// one of its requests, and that nothing else served a request to the fork's workload.
//
// A failed test is the variant's failure only if its requests reached the fork, or were refused in its place, and the
// fork ran what was requested. A test that never reached the variant says nothing about it, whatever its exit status.
func Judge(e *Evidence) Verdict {
	var doubts doubts
	doubts.job(&e.Job)
	doubts.sandbox(e)
	total, by := e.counted()
	doubts.requests(e, total, by)
	doubts.reported(e)
	if e.Job.Failed && len(doubts.blocking) == 0 && total.Fork+total.Refused+total.Unfinished > 0 {
		return Verdict{Failed, append([]Reason{failure(&e.Job)}, doubts.other...)}
	}
	reasons := slices.Concat(doubts.blocking, doubts.other)
	if e.Job.Failed && e.Job.Broken == nil {
		reasons = append(reasons, failure(&e.Job))
	}
	if len(reasons) > 0 {
		return Verdict{Inconclusive, reasons}
	}
	return Verdict{Outcome: Passed}
}

// failure returns why a Job failed.
func failure(j *JobEnd) Reason {
	switch {
	case j.TimedOut != "":
		return because(TimedOut, "the test did not end within "+j.TimedOut)
	case j.Container != "":
		return because(TestFailed, fmt.Sprintf("container %s exited with status %d", j.Container, j.Exit))
	case j.Message != "":
		return because(TestFailed, j.Message)
	}
	return because(TestFailed, "the Job failed")
}

// doubts are reasons that keep a check from passing. Blocking ones mean that this variant, or this variant alone, was
// not what was tested. Then a failure is not the variant's either.
type doubts struct{ blocking, other []Reason }

func (d *doubts) block(c Code, format string, args ...any) {
	d.blocking = append(d.blocking, because(c, fmt.Sprintf(format, args...)))
}

func (d *doubts) add(c Code, format string, args ...any) {
	d.other = append(d.other, because(c, fmt.Sprintf(format, args...)))
}

func (d *doubts) job(j *JobEnd) {
	switch {
	case j.Broken != nil:
		d.blocking = append(d.blocking, *j.Broken)
	case !j.Complete && !j.Failed:
		d.block(NotFinished, "the Job has not ended")
	case j.Pods == 0:
		d.block(NotRun, "the Job ended without a pod")
	}
	if len(j.Uninjected) > 0 {
		d.block(NotInjected, "admission gave no router to %s", some(j.Uninjected))
	}
}

// sandbox checks that the sandbox and its forks stayed the same during the check.
func (d *doubts) sandbox(e *Evidence) {
	switch {
	case !e.Before.Exists:
		d.block(SandboxGone, "the sandbox was not there when the check began")
		return
	case !e.After.Exists:
		d.block(SandboxGone, "the sandbox expired or was deleted before the check ended")
		return
	case e.Before.UID != e.After.UID:
		d.block(SandboxGone, "the sandbox was deleted and recreated")
		return
	case len(e.Before.Forks) == 0:
		d.block(ForkGone, "the sandbox has no fork")
	}
	for _, f := range e.Before.Forks {
		i := slices.IndexFunc(e.After.Forks, func(o ForkState) bool { return o.Name == f.Name && o.UID == f.UID })
		if i < 0 {
			d.block(ForkGone, "fork %s was deleted before the check ended", f.Name)
			continue
		}
		d.fork(&f, &e.After.Forks[i])
	}
	if len(e.Seen.Unready) > 0 {
		d.add(ForkNotReady, "%s", some(e.Seen.Unready))
	}
	for _, at := range slices.Sorted(maps.Keys(e.Seen.Digests)) {
		if digests := e.Seen.Digests[at]; len(digests) > 1 {
			d.block(DigestMismatch, "pods of %s ran different images under one name: %s", at, some(digests))
		}
	}
}

func (d *doubts) fork(before, after *ForkState) {
	if before.Revision != after.Revision {
		d.block(ForkChanged, "fork %s was updated or rebased while the check ran", before.Name)
		return
	}
	for _, p := range before.Pods {
		i := slices.IndexFunc(after.Pods, func(o ForkPod) bool { return o.UID == p.UID })
		switch {
		case i < 0:
			d.block(ForkRestarted, "pod %s of fork %s was replaced while the check ran", p.Name, before.Name)
		case after.Pods[i].Restarts != p.Restarts:
			d.add(ForkRestarted, "pod %s of fork %s was restarted while the check ran", p.Name, before.Name)
		}
	}
	if len(before.Pods) == 0 {
		d.add(ForkNotReady, "fork %s had no pod", before.Name)
	}
	for _, p := range after.Pods {
		for _, i := range p.Images {
			if _, asked, ok := strings.Cut(i.Image, "@"); ok && asked != i.Digest {
				d.block(DigestMismatch, "container %s of %s runs %s, and %s was asked for", i.Container, p.Name, none(i.Digest), asked)
			}
		}
	}
}

// requests checks where the check's requests went, according to the routers' counts.
func (d *doubts) requests(e *Evidence, total route.Count, by route.Totals) {
	if bare := e.Seen.Routerless; len(bare) > 0 {
		d.block(RouterMissing, "requests could bypass the fork by %s, without a router", some(bare))
	}
	if total.FellBack > 0 {
		d.block(FellBack, "%s answered by the baseline in place of the fork (--when-unready=baseline)", were(total.FellBack))
	}
	if total.Refused > 0 {
		d.add(Refused, "%s refused, as no pod of the fork was ready", were(total.Refused))
	}
	d.beside(e)
	lost := ended(e.Before.Routers, e.After.Routers, e.After.Ended)
	uncounted := e.uncounted()
	if uncounted != "" {
		d.add(NotCounted, "%s", uncounted)
	}
	d.lost(lost)
	sent := e.Sent
	switch {
	case sent == nil: // reported adds the reason
	case sent.Begun == 0:
		d.block(NothingSent, "the test sent no request by SANDBOX_URL or HTTP_PROXY")
		return
	case sent.OtherKeys > 0 && sent.OtherKeys >= sent.Begun:
		d.block(OtherKey, "the test's requests carried another key than the sandbox's")
		return
	}
	none := total.Fork+total.Unfinished == 0 && total.Refused == 0
	switch {
	case none && total.FellBack > 0: // the reason was added above
	case none && (uncounted != "" || len(lost) > 0):
		d.block(NotCounted, "whether any request came to the fork is not known")
	case none:
		d.block(NotReached, "%s", lostWhere(e, by))
	case total.Fork == 0 && total.Unfinished > 0:
		d.add(Unanswered, "%s taken by the fork, and none answered", were(total.Unfinished))
	case sent != nil && sent.Answered == 0 && total.Fork > 0:
		d.add(Unanswered, "the test cancelled its %s before they were answered", requests(sent.Begun))
	}
}

// beside checks whether other workloads behind the same Services, which are not forked, answered requests.
func (d *doubts) beside(e *Evidence) {
	var by, unknown []string
	var n uint64
	for _, w := range slices.Sorted(slices.Values(e.Seen.Beside)) {
		switch o := e.Passed[w]; {
		case e.Passed == nil:
			unknown = append(unknown, workloadOf(w))
		case o.Requests > 0:
			by, n = append(by, workloadOf(w)), n+o.Requests
		}
	}
	if n > 0 {
		d.blocking = append(d.blocking, *blamed(FaultCluster, FellBack, fmt.Sprintf("%s answered by %s, which a Service of the fork's workload leads to as well: "+
			"fork it too, or test by a Service that leads to the fork's workload alone", were(n), some(by))))
	}
	if len(unknown) > 0 {
		d.add(NotCounted, "a Service of the fork's workload leads to %s as well, and whether that answered any request is not known", some(unknown))
	}
}

// uncounted returns why the counts of the routers in front of the forks' workloads are unknown or incomplete; empty
// if they are complete.
func (e *Evidence) uncounted() string {
	switch {
	case !e.Before.Counted || !e.After.Counted:
		return "the webhook did not give the routers' counts: it did not answer, or you may not patch configmaps"
	case e.After.Uncounted != "":
		return "the routers of " + e.After.Uncounted + " did not give their counts"
	case e.Before.Uncounted != "":
		return "the routers of " + e.Before.Uncounted + " did not give their counts"
	}
	return ""
}

// reported checks that the router beside the test reported what it sent.
func (d *doubts) reported(e *Evidence) {
	if e.Sent == nil && e.Job.Pods > 0 && len(e.Job.Uninjected) == 0 && (e.Job.Complete || e.Job.Failed) {
		d.add(NotReported, "the router beside the test did not report what it sent")
	}
}

// ended returns the pods whose routers ended during the check, except those that handed over their counts.
func ended(before, after, handedOver []string) (pods []string) {
	for _, r := range before {
		if !slices.Contains(after, r) {
			if name, _, _ := strings.Cut(r, "/"); !slices.Contains(handedOver, name) {
				pods = append(pods, name)
			}
		}
	}
	return pods
}

func (d *doubts) lost(pods []string) {
	if len(pods) > 0 {
		d.block(RouterLost, "the routers of %s ended while the check ran, and what they counted last may be lost", some(pods))
	}
}

// lostWhere describes which hop saw the key last, as far as the counts show.
func lostWhere(e *Evidence, by route.Totals) string {
	sent := e.Sent
	workloads := make([]string, 0, len(by))
	for w := range by {
		workloads = append(workloads, workloadOf(w))
	}
	slices.Sort(workloads)
	where := "the fork's workload"
	if len(workloads) > 0 {
		where = strings.Join(workloads, " or ")
	}
	unknown := ""
	switch {
	case e.Passed == nil:
		unknown = "the webhook did not report what passed other workloads"
	case e.PassedMissing != "":
		unknown = "the routers of " + e.PassedMissing + " did not report what passed them"
	}
	switch {
	case len(e.Passed) > 0 && unknown != "":
		return lastSeen(e.Passed) + " to " + where + "; it may have come further, as " + unknown
	case len(e.Passed) > 0:
		return lastSeen(e.Passed) + " to " + where
	case sent == nil:
		return "no request with the key came to " + where
	case sent.Answered+sent.Refused == 0:
		return fmt.Sprintf("the test cancelled its %s before they were answered; whether they came to %s is not known", requests(sent.Begun), where)
	case unknown != "":
		return fmt.Sprintf("of the test's %s, none with the key came to %s; where the key was lost is not known, as %s", requests(sent.Begun), where, unknown)
	case sent.Answered == 0:
		return fmt.Sprintf("the key was last seen at the test's own router: nobody took its %s", requests(sent.Refused))
	}
	return fmt.Sprintf("the key was last seen at the test's own router, which had %s answered; none with the key came to %s: "+
		"what is between drops it, answers by itself, or is not the way there", requests(sent.Answered), where)
}

// lastSeen names the workloads that saw the key, the latest first, by the routers' clocks.
func lastSeen(passed map[string]route.Observation) string {
	hops := slices.SortedFunc(maps.Keys(passed), func(a, b string) int {
		return cmp.Or(cmp.Compare(passed[b].Last, passed[a].Last), cmp.Compare(a, b))
	})
	last := requests(passed[hops[0]].Requests)
	for i := range hops {
		hops[i] = workloadOf(hops[i])
	}
	if len(hops) == 1 {
		return fmt.Sprintf("the key was last seen at %s, in %s: it does not pass the key on, or makes no call,", hops[0], last)
	}
	return fmt.Sprintf("the key was last seen at %s, in %s, and before at %s: none of these passes the key on, or makes a call,", hops[0], last, some(hops[1:]))
}

// workloadOf converts a workload's label to KIND/NAME.
func workloadOf(label string) string { return strings.Replace(label, ".", "/", 1) }

func requests(n uint64) string {
	if n == 1 {
		return "1 request"
	}
	return fmt.Sprintf("%d requests", n)
}

func were(n uint64) string {
	if n == 1 {
		return "1 request was"
	}
	return fmt.Sprintf("%d requests were", n)
}

// some joins at most five strings, and counts the rest.
func some(all []string) string {
	const most = 5
	if len(all) > most {
		return fmt.Sprintf("%s and %d more", strings.Join(all[:most], ", "), len(all)-most)
	}
	return strings.Join(all, ", ")
}

func none(s string) string {
	if s == "" {
		return "nothing known"
	}
	return s
}
