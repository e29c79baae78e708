package experiment

import (
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/route"
)

const customer = "deployment.customer"

// sound is the evidence of a check that passed: each test spoils it in one way.
func sound() *Evidence {
	state := func(fork uint64) State {
		return State{
			Exists: true, UID: "s1", Counted: true, Counts: route.Totals{customer: {Fork: fork}},
			Forks: []ForkState{{
				Name: "customer-a", Workload: customer, UID: "d1", Revision: "1", Ready: true,
				Pods: []ForkPod{{UID: "p1", Name: "customer-a-1", Images: []Image{{"app", "customer@sha256:aa", "sha256:aa"}}}},
			}},
			Routers: []string{"customer-0/r1", "customer-1/r1"},
		}
	}
	e := &Evidence{
		Job:  JobEnd{Complete: true, Pods: 1},
		Sent: &route.Sent{Begun: 3, Answered: 3}, Before: state(5), After: state(8),
	}
	e.Seen.See(&e.Before)
	e.Seen.See(&e.After)
	return e
}

func failing(e *Evidence) {
	e.Job = JobEnd{Failed: true, Reason: "BackoffLimitExceeded", Pods: 1, Container: "test", Exit: 1}
}

func TestJudge_PassesWhatTestedTheFork(t *testing.T) {
	if v := Judge(sound()); v.Outcome != Passed || len(v.Reasons) > 0 {
		t.Errorf("got %+v", v)
	}
}

// vacuous are the ways a test can succeed without having tested the variant.
func vacuous() map[string]struct {
	spoil func(*Evidence)
	want  Code
} {
	type way = struct {
		spoil func(*Evidence)
		want  Code
	}
	unreached := func(e *Evidence) { e.After.Counts = e.Before.Counts }
	return map[string]way{
		"it exits with 0 at once":                     {func(e *Evidence) { unreached(e); e.Sent = &route.Sent{} }, NothingSent},
		"it sends nothing while others use the key":   {func(e *Evidence) { e.Sent = &route.Sent{} }, NothingSent},
		"wrong port, and it ignores the error":        {func(e *Evidence) { unreached(e); e.Sent = &route.Sent{Begun: 3, Refused: 3} }, NotReached},
		"wrong namespace":                             {func(e *Evidence) { unreached(e); e.After.Counts = nil; e.Before.Counts = nil }, NotReached},
		"the key is dropped on the way":               {unreached, NotReached},
		"the key's carrier is sampled out":            {func(e *Evidence) { unreached(e); e.Sent = &route.Sent{Begun: 1000, Answered: 1000} }, NotReached},
		"it gives up before the answer":               {func(e *Evidence) { unreached(e); e.Sent = &route.Sent{Begun: 3} }, NotReached},
		"a cache answers":                             {func(e *Evidence) { unreached(e); e.Sent = &route.Sent{Begun: 1, Answered: 1} }, NotReached},
		"it brings another key":                       {func(e *Evidence) { unreached(e); e.Sent.OtherKeys = 3 }, OtherKey},
		"half of the baseline's pods have no router":  {func(e *Evidence) { e.Seen.Routerless = []string{"customer-1 of deployment/customer"} }, RouterMissing},
		"a pod without router comes and goes":         {func(e *Evidence) { e.Seen.See(&State{Routerless: []string{"customer-2 of deployment/customer"}}) }, RouterMissing},
		"the baseline answers in place of the fork":   {func(e *Evidence) { e.After.Counts[customer] = route.Count{Fork: 7, FellBack: 1} }, FellBack},
		"the baseline alone answers":                  {func(e *Evidence) { e.After.Counts[customer] = route.Count{Fork: 5, FellBack: 3} }, FellBack},
		"routers refuse, and it ignores the error":    {func(e *Evidence) { e.After.Counts[customer] = route.Count{Fork: 7, Refused: 1} }, Refused},
		"it gives up before the fork's answer":        {func(e *Evidence) { e.Sent = &route.Sent{Begun: 3} }, Unanswered},
		"the fork breaks each answer off":             {func(e *Evidence) { e.After.Counts[customer] = route.Count{Fork: 5, Unfinished: 3} }, Unanswered},
		"the fork is not ready for a while":           {func(e *Evidence) { e.Seen.See(&State{Forks: []ForkState{{Name: "customer-a", Waiting: "a pod"}}}) }, ForkNotReady},
		"the fork has no pod":                         {func(e *Evidence) { e.Before.Forks[0].Pods = nil }, ForkNotReady},
		"the fork's container is restarted":           {func(e *Evidence) { e.After.Forks[0].Pods[0].Restarts = 1 }, ForkRestarted},
		"the fork's pod is replaced":                  {func(e *Evidence) { e.After.Forks[0].Pods[0].UID = "p2" }, ForkRestarted},
		"the fork is rebased":                         {func(e *Evidence) { e.After.Forks[0].Revision = "2" }, ForkChanged},
		"the fork is deleted":                         {func(e *Evidence) { e.After.Forks = nil }, ForkGone},
		"the fork is made anew":                       {func(e *Evidence) { e.After.Forks[0].UID = "d2" }, ForkGone},
		"the sandbox has no fork":                     {func(e *Evidence) { e.Before.Forks, e.After.Forks = nil, nil }, ForkGone},
		"the sandbox expires":                         {func(e *Evidence) { e.After = State{} }, SandboxGone},
		"the sandbox has expired before":              {func(e *Evidence) { e.Before = State{} }, SandboxGone},
		"the sandbox is made anew":                    {func(e *Evidence) { e.After.UID = "s2" }, SandboxGone},
		"a stale image runs under the digest's name":  {func(e *Evidence) { e.After.Forks[0].Pods[0].Images[0].Digest = "sha256:bb" }, DigestMismatch},
		"the digest is not known":                     {func(e *Evidence) { e.After.Forks[0].Pods[0].Images[0].Digest = "" }, DigestMismatch},
		"two pods run different images under one tag": {func(e *Evidence) { e.Seen.Digests["customer-a, container app"] = []string{"sha256:aa", "sha256:bb"} }, DigestMismatch},
		"a router ends before it is asked":            {func(e *Evidence) { e.After.Routers = e.After.Routers[:1] }, RouterLost},
		"a router starts anew":                        {func(e *Evidence) { e.After.Routers[1] = "customer-1/r2" }, RouterLost},
		"a router does not answer":                    {func(e *Evidence) { e.After.Uncounted = "customer-1" }, NotCounted},
		"the webhook does not answer":                 {func(e *Evidence) { e.After.Counted = false }, NotCounted},
		"it did not answer before":                    {func(e *Evidence) { e.Before.Counted = false }, NotCounted},
		"admission left the pod alone":                {func(e *Evidence) { e.Sent, e.Job.Uninjected = nil, []string{"smoke-1"} }, NotInjected},
		"the test's router says nothing":              {func(e *Evidence) { e.Sent = nil }, NotReported},
		"the Job has not ended":                       {func(e *Evidence) { e.Job.Complete = false }, NotFinished},
		"the Job has no pods":                         {func(e *Evidence) { e.Job.Pods = 0 }, NotRun},
		"another workload of the Service answers some": {func(e *Evidence) {
			e.Seen.Beside, e.Passed = []string{"deployment.canary"}, map[string]route.Observation{"deployment.canary": {Requests: 12}}
		}, FellBack},
		"whether another workload of the Service answers is not known": {func(e *Evidence) { e.Seen.Beside, e.Passed = []string{"deployment.canary"}, nil }, NotCounted},
		"nothing is counted, and the webhook does not answer":          {func(e *Evidence) { unreached(e); e.After.Counted = false }, NotCounted},
		"nothing is counted, and a router ended":                       {func(e *Evidence) { unreached(e); e.After.Routers = e.After.Routers[:1] }, RouterLost},
		"the Job's pod was evicted":                                    {func(e *Evidence) { e.Job.Broken = broken(FaultCluster, "PodEvicted", "pod smoke-1 was evicted") }, NotRun},
	}
}

// The table that people read is of these ways, and there are enough of them.
func TestVacuousWaysAreInTheTable(t *testing.T) {
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(text), "## As pure cases\n")
	section, _, _ = strings.Cut(section, "\n#")
	have := regexp.MustCompile("(?m)^\\| .+ \\| `.+` \\|$").FindAllString(section, -1)
	var want []string
	for name, way := range vacuous() {
		want = append(want, fmt.Sprintf("| %s | `%s` |", name, way.want))
	}
	slices.Sort(have)
	slices.Sort(want)
	if !slices.Equal(have, want) {
		t.Errorf("the table in README.md is not of the ways here; it has to be\n%s", strings.Join(want, "\n"))
	}
	if len(want) < 22 {
		t.Errorf("only %d ways", len(want))
	}
}

func TestJudge_NeverPassesWhatDidNotTestTheFork(t *testing.T) {
	for name, way := range vacuous() {
		t.Run(name, func(t *testing.T) {
			e := sound()
			way.spoil(e)
			v := Judge(e)
			if v.Outcome != Inconclusive || !slices.ContainsFunc(v.Reasons, func(r Reason) bool { return r.Code == way.want }) {
				t.Errorf("got %+v, want inconclusive: %s", v, way.want)
			}
			for _, r := range v.Reasons {
				if r.Message == "" {
					t.Errorf("%s says nothing", r.Code)
				}
			}
			failing(e)
			if v := Judge(e); v.Outcome == Passed {
				t.Errorf("the same test passes where it fails: %+v", v)
			}
		})
	}
}

func TestJudge_NamesTheWorkloadThatSawTheKeyLast(t *testing.T) {
	for want, passed := range map[string]map[string]route.Observation{
		"the key was last seen at the test's own router, which had 3 requests answered; none with the key came to deployment/customer: " +
			"what is between drops it, answers by itself, or is not the way there": {},
		"the key was last seen at deployment/api, in 3 requests: it does not pass the key on, or makes no call, to deployment/customer": {
			"deployment.api": {Requests: 3, Last: 7},
		},
		"the key was last seen at statefulset/b.c, in 1 request, and before at deployment/api, deployment/z: none of these passes the key on, " +
			"or makes a call, to deployment/customer": {
			"deployment.api": {Requests: 3, Last: 7}, "deployment.z": {Requests: 3, Last: 6}, "statefulset.b.c": {Requests: 1, Last: 9},
		},
	} {
		e := sound()
		e.After.Counts, e.Passed = e.Before.Counts, passed
		v := Judge(e)
		if v.Outcome != Inconclusive || len(v.Reasons) != 1 || v.Reasons[0] != because(NotReached, want) {
			t.Errorf("got %+v, want %s", v, want)
		}
	}
}

// What is not known is not stated.
func TestJudge_StatesNoHopWhereCountsAreMissing(t *testing.T) {
	for _, tt := range []struct {
		name  string
		spoil func(*Evidence)
		code  Code
		want  string
	}{
		{"of the forks' routers", func(e *Evidence) {
			e.After.Counted, e.Passed = false, map[string]route.Observation{"deployment.api": {Requests: 3}}
		},
			NotCounted, "whether any request came to the fork is not known"},
		{"of one of them", func(e *Evidence) { e.After.Uncounted, e.Passed = "customer-1", map[string]route.Observation{} },
			NotCounted, "whether any request came to the fork is not known"},
		{"of one that ended", func(e *Evidence) { e.After.Routers, e.Passed = e.After.Routers[:1], map[string]route.Observation{} },
			NotCounted, "whether any request came to the fork is not known"},
		{"of all others", func(*Evidence) {}, NotReached,
			"of the test's 3 requests, none with the key came to deployment/customer; where the key was lost is not known, as the webhook did not report what passed other workloads"},
		{"of one other", func(e *Evidence) { e.Passed, e.PassedMissing = map[string]route.Observation{}, "api-1" }, NotReached,
			"of the test's 3 requests, none with the key came to deployment/customer; where the key was lost is not known, as the routers of api-1 did not report what passed them"},
		{"of one other, and one told", func(e *Evidence) {
			e.Passed, e.PassedMissing = map[string]route.Observation{"deployment.api": {Requests: 3}}, "api-1"
		}, NotReached,
			"the key was last seen at deployment/api, in 3 requests: it does not pass the key on, or makes no call, to deployment/customer; it may have come further, " +
				"as the routers of api-1 did not report what passed them"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := sound()
			e.After.Counts = e.Before.Counts
			tt.spoil(e)
			v := Judge(e)
			if v.Outcome != Inconclusive || !slices.Contains(v.Reasons, because(tt.code, tt.want)) {
				t.Errorf("got %+v, want %s: %s", v, tt.code, tt.want)
			}
			if tt.code != NotReached && slices.ContainsFunc(v.Reasons, func(r Reason) bool { return r.Code == NotReached }) {
				t.Errorf("states where the key was lost: %+v", v)
			}
		})
	}
}

func TestPassedIn(t *testing.T) {
	before := route.Observed{"k": {"a": {Requests: 3, Failed: 1, Last: 5}, "b": {Requests: 2, Last: 5}, "c": {Requests: 9}}}
	after := route.Observed{
		"k": {"a": {Requests: 7, Failed: 2, Last: 9}, "b": {Requests: 2, Last: 5}, "c": {Requests: 1, Last: 3}, "d": {Requests: 4}}, "l": {"a": {Requests: 1}},
	}
	want := map[string]route.Observation{"a": {Requests: 4, Failed: 1, Last: 9}, "c": {Requests: 1, Last: 3}, "d": {Requests: 4}}
	if got := PassedIn(before, after, "k"); !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestJudge_TellsAFailureFromATestThatNeverReachedTheVariant(t *testing.T) {
	for _, tt := range []struct {
		name  string
		spoil func(*Evidence)
		want  Outcome
		code  Code
	}{
		{"the test failed", func(*Evidence) {}, Failed, TestFailed},
		{"the test hung", func(e *Evidence) { e.Job.Container, e.Job.TimedOut = "", "10m0s (--timeout)" }, Failed, TimedOut},
		{"the fork broke off", func(e *Evidence) { e.After.Counts[customer] = route.Count{Fork: 5, Unfinished: 3} }, Failed, TestFailed},
		{"the fork crashed", func(e *Evidence) {
			e.After.Counts[customer], e.After.Forks[0].Pods[0].Restarts = route.Count{Fork: 5, Refused: 3}, 1
		}, Failed, TestFailed},
		{"it never reached the fork", func(e *Evidence) { e.After.Counts = e.Before.Counts }, Inconclusive, NotReached},
		{"it sent nothing", func(e *Evidence) { e.Sent = &route.Sent{} }, Inconclusive, NothingSent},
		{"the baseline answered part of it", func(e *Evidence) { e.After.Counts[customer] = route.Count{Fork: 7, FellBack: 1} }, Inconclusive, FellBack},
		{"it began too late to end in time", func(e *Evidence) { e.Job.Broken = broken(FaultTest, "", "most of its own deadline went by") }, Inconclusive, NotRun},
		{"the fork's pod was replaced", func(e *Evidence) { e.After.Forks[0].Pods[0].UID = "p2" }, Inconclusive, ForkRestarted},
		{"a router ended", func(e *Evidence) { e.After.Routers = e.After.Routers[1:] }, Inconclusive, RouterLost},
		{"its image can't be pulled", func(e *Evidence) { e.Job.Broken = broken(FaultTest, "ImagePullFailed", "no image") }, Inconclusive, NotRun},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := sound()
			failing(e)
			tt.spoil(e)
			if v := Judge(e); v.Outcome != tt.want || v.Reasons[0].Code != tt.code {
				t.Errorf("got %+v, want %s: %s", v, tt.want, tt.code)
			}
		})
	}
}
