package ordinary_test

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"pgregory.net/rapid"
	"sigs.k8s.io/yaml"

	"github.com/kubectl-sandbox/kubectl-sandbox/test/ordinary"
)

func TestSequencesAreSensibleRepeatableAndCoverEveryKind(t *testing.T) {
	drawn := map[ordinary.Kind]int{}
	for seed := range uint64(40) {
		q := ordinary.NewGenerator(seed).Draw(60)
		if again := ordinary.NewGenerator(seed).Draw(60); !reflect.DeepEqual(q, again) {
			t.Fatalf("seed %d draws different sequences", seed)
		}
		if kept := q.Sensible(); !reflect.DeepEqual(kept, q) {
			t.Errorf("seed %d: of %d operations %d make sense", seed, len(q), len(kept))
		}
		for _, o := range q {
			drawn[o.Kind]++
		}
	}
	if n := len(ordinary.Kinds()); n < 25 {
		t.Errorf("there are %d kinds of operations", n)
	}
	for _, k := range ordinary.Kinds() {
		if drawn[k] == 0 {
			t.Errorf("%s is never drawn", k)
		}
	}
}

func TestOthersAreNotConcernedOnASharedCluster(t *testing.T) {
	for seed := range uint64(40) {
		g := ordinary.NewGenerator(seed)
		g.Shared = true
		if slices.ContainsFunc(g.Draw(60), func(o ordinary.Operation) bool { return o.Kind == ordinary.WebhookAway }) {
			t.Fatalf("seed %d takes the webhook away", seed)
		}
	}
}

func TestASequenceIsReadAsItWasWritten(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		q := ordinary.NewGenerator(rapid.Uint64().Draw(t, "seed")).Draw(rapid.IntRange(1, 40).Draw(t, "length"))
		got, err := ordinary.Parse("# a comment\n\n" + q.Encode())
		if err != nil || !reflect.DeepEqual(got, q) {
			t.Fatalf("%v\n%s", err, q.Encode())
		}
	})
	for _, bad := range []string{"sing", "fork by helm3", "new-image", "new-image by chance", "undo 4", "undo one", "restart 0 1"} {
		if q, err := ordinary.Parse(bad); err == nil {
			t.Errorf("%q is read as %v", bad, q)
		}
	}
}

func TestKeptSequencesAreRead(t *testing.T) {
	files, err := filepath.Glob("testdata/sequences/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no sequences: %v", err)
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		q, err := ordinary.Parse(string(text))
		if err != nil || len(q) == 0 || len(q.Sensible()) != len(q) {
			t.Errorf("%s: %d operations, of which %d make sense: %v", f, len(q), len(q.Sensible()), err)
		}
	}
}

func TestManifestsAreYAMLOfEveryState(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := ordinary.NewGenerator(rapid.Uint64().Draw(t, "seed")).Draw(40).End()
		for text := range strings.SplitSeq(s.Manifests(), "---\n") {
			var o unstructured.Unstructured
			if err := yaml.Unmarshal([]byte(text), &o.Object); err != nil || o.GetName() == "" {
				t.Fatalf("%v\n%s", err, text)
			}
		}
	})
}

// A sequence fails where it has these operations in this order: Shrink must find just them, whatever else there is.
func TestShrinkLeavesWhatFails(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		q := ordinary.NewGenerator(rapid.Uint64().Draw(t, "seed")).Draw(30)
		first, second := rapid.SampledFrom(q).Draw(t, "first"), rapid.SampledFrom(q).Draw(t, "second")
		runs := 0
		fails := func(q ordinary.Sequence) bool {
			runs++
			at := slices.Index(q, first)
			return at >= 0 && slices.Contains(q[at:], second)
		}
		if !fails(q) {
			return
		}
		runs = 0
		got := ordinary.Shrink(q, 300, fails)
		if !fails(got) || len(got.Sensible()) != len(got) {
			t.Fatalf("it does not fail:\n%s", got.Encode())
		}
		for i := range got {
			rest := slices.Delete(slices.Clone(got), i, i+1).Sensible()
			if len(rest) < len(got) && fails(rest) {
				t.Fatalf("%d operations, and without %s it fails as well:\n%s", len(got), got[i], got.Encode())
			}
		}
	})
}

func TestShrinkStopsAtItsBudget(t *testing.T) {
	runs := 0
	q := ordinary.NewGenerator(1).Draw(30)
	if got := ordinary.Shrink(q, 7, func(ordinary.Sequence) bool { runs++; return false }); runs != 7 || !reflect.DeepEqual(got, q) {
		t.Errorf("it ran %d sequences", runs)
	}
}

// at returns a time that many seconds into a record.
func at(seconds float64) time.Time {
	return time.Unix(1000, 0).Add(time.Duration(seconds * float64(time.Second)))
}

// a scene is a record of one step of a minute, in which everything is well.
func scene(change func(*ordinary.Record)) ordinary.Record {
	s := ordinary.Step{Operation: ordinary.Operation{Kind: ordinary.Restart}, Begin: at(0), Done: at(1), End: at(60)}
	s.After.Forked, s.After.Routed, s.After.Replicas = true, true, 1
	r := ordinary.Record{Steps: []ordinary.Step{s}, Sandbox: []ordinary.Span{{Begin: at(0), End: at(60)}}}
	for i := range 118 {
		q := ordinary.Request{At: at(float64(i) / 2), End: at(float64(i)/2 + 0.1)}
		r.Unkeyed, r.Twin, r.Keyed = append(r.Unkeyed, q), append(r.Twin, q), append(r.Keyed, q)
	}
	for i := range 29 {
		r.Truths = append(r.Truths, ordinary.Truth{Begin: at(float64(2 * i)), End: at(float64(2*i) + 0.5), Routed: true})
	}
	change(&r)
	return r
}

// become gives requests of the seconds given another outcome.
func become(all []ordinary.Request, o ordinary.Outcome, from, to float64) {
	for i := range all {
		if !all[i].At.Before(at(from)) && all[i].At.Before(at(to)) {
			all[i].Outcome = o
		}
	}
}

// say gives the truth of the seconds given a reason.
func say(r *ordinary.Record, reason, message string, from, to float64) {
	for i := range r.Truths {
		if t := &r.Truths[i]; !t.Begin.Before(at(from)) && t.Begin.Before(at(to)) {
			t.Routed, t.Reason, t.Message = false, reason, message
		}
	}
}

// A judged is a change of a record in which all is well, and the promises that are broken then.
type judged struct {
	name   string
	change func(*ordinary.Record)
	want   []ordinary.Rule
}

func TestJudge_OperationsAndRequestsWithoutAKey(t *testing.T) {
	judge(t, []judged{
		{"all is well", func(*ordinary.Record) {}, nil},
		{"an operation fails on ours alone", func(r *ordinary.Record) { r.Steps[0].Err = "conflict" }, []ordinary.Rule{ordinary.DeployFailed}},
		{"an operation fails on both", func(r *ordinary.Record) { r.Steps[0].Err, r.Steps[0].TwinErr = "conflict", "conflict" }, nil},
		{"a command of the product fails", func(r *ordinary.Record) {
			r.Steps[0].Operation.Kind, r.Steps[0].Err = ordinary.Fork, "no"
		}, []ordinary.Rule{ordinary.CommandFailed}},
		{"a command of the product fails where it must", func(r *ordinary.Record) {
			r.Steps[0].Operation.Kind, r.Steps[0].Err = ordinary.Unroute, "there are forks"
		}, nil},
		{"a fork of what was made anew fails, and its command helps", func(r *ordinary.Record) {
			st := &r.Steps[0]
			st.Operation.Kind, st.Err, st.After.Remade, st.Fix = ordinary.Fork, "no", true, &ordinary.Fix{Command: "x", Worked: true}
		}, nil},
		{"a fork of what was made anew fails, and its command does not help", func(r *ordinary.Record) {
			st := &r.Steps[0]
			st.Operation.Kind, st.Err, st.After.Remade, st.Fix = ordinary.Fork, "no", true, &ordinary.Fix{Command: "x"}
		}, []ordinary.Rule{ordinary.NotFixed}},
		{"a failed apply left the two applications with other ports", func(r *ordinary.Record) {
			r.Steps[0].Err, r.Steps[0].TwinErr, r.Steps[0].Diverged = "conflict", "conflict", true
			become(r.Unkeyed, ordinary.Failed, 3, 9)
		}, nil},
		{"a fork of an image that crashes succeeds", func(r *ordinary.Record) { r.Steps[0].Operation.Kind = ordinary.ForkCrash }, []ordinary.Rule{ordinary.CommandFailed}},
		{"one request without a key fails", func(r *ordinary.Record) { become(r.Unkeyed, ordinary.Failed, 3, 3.5) }, []ordinary.Rule{ordinary.UnkeyedFailed}},
		{"both fail for a while", func(r *ordinary.Record) {
			become(r.Twin, ordinary.Failed, 3, 6)
			become(r.Unkeyed, ordinary.Failed, 3, 9)
		}, nil},
		{"both fail, and ours goes on", func(r *ordinary.Record) {
			become(r.Twin, ordinary.Failed, 3, 6)
			become(r.Unkeyed, ordinary.Failed, 3, 30)
		}, []ordinary.Rule{ordinary.UnkeyedFailed}},
		{"a fork answers a request without a key, while the twin is away", func(r *ordinary.Record) {
			become(r.Twin, ordinary.Failed, 3, 6)
			become(r.Unkeyed, ordinary.Stray, 4, 5)
		}, []ordinary.Rule{ordinary.UnkeyedFailed}},
	})
}

func TestJudge_RequestsWithAKeyAndStatus(t *testing.T) {
	judge(t, []judged{
		{"the baseline answers keyed requests, and status says Routed", func(r *ordinary.Record) { become(r.Keyed, ordinary.Baseline, 3, 4) }, []ordinary.Rule{ordinary.KeyedToBaseline}},
		{"and status says in time that they pass by", func(r *ordinary.Record) {
			become(r.Keyed, ordinary.Baseline, 3, 40)
			say(r, "ServiceBypassesRouters", "a Service leads to the app", 10, 40)
		}, nil},
		{"and status says so too late", func(r *ordinary.Record) {
			become(r.Keyed, ordinary.Baseline, 3, 40)
			say(r, "ServiceBypassesRouters", "a Service leads to the app", 18, 40)
		}, []ordinary.Rule{ordinary.KeyedToBaseline}},
		{"and status stops saying so too early", func(r *ordinary.Record) {
			become(r.Keyed, ordinary.Baseline, 3, 40)
			say(r, "ServiceBypassesRouters", "a Service leads to the app", 3, 25)
		}, []ordinary.Rule{ordinary.KeyedToBaseline}},
		{"and status gives a reason for which they must be refused", func(r *ordinary.Record) {
			become(r.Keyed, ordinary.Baseline, 3, 40)
			say(r, "ContainerCrashed", "it crashes", 3, 40)
		}, []ordinary.Rule{ordinary.KeyedToBaseline}},
		{"and status gives another reason first", func(r *ordinary.Record) {
			become(r.Keyed, ordinary.Baseline, 3, 10)
			say(r, "ContainerCrashed", "it crashes", 0, 5)
			say(r, "BaselineNotRouted", "it is not routed", 5, 40)
		}, nil},
		{"which its user asked for", func(r *ordinary.Record) {
			r.Steps[0].After.ToBaseline = true
			become(r.Keyed, ordinary.Baseline, 3, 40)
			say(r, "ContainerCrashed", "it crashes", 3, 40)
		}, nil},
		{"which its user asked for, and status says Routed", func(r *ordinary.Record) {
			r.Steps[0].After.ToBaseline = true
			become(r.Keyed, ordinary.Baseline, 3, 40)
		}, []ordinary.Rule{ordinary.KeyedToBaseline}},
		{"the baseline answers before there is a sandbox", func(r *ordinary.Record) {
			r.Sandbox[0].Begin = at(10)
			become(r.Keyed, ordinary.Baseline, 0, 10)
		}, nil},

		{"routers refuse for a moment, with the reason", func(r *ordinary.Record) { become(r.Keyed, ordinary.Refused, 3, 6) }, nil},
		{"routers refuse for long, and status says Routed", func(r *ordinary.Record) { become(r.Keyed, ordinary.Refused, 3, 20) }, []ordinary.Rule{ordinary.Silent}},
		{"routers refuse for long, and status says why", func(r *ordinary.Record) {
			become(r.Keyed, ordinary.Refused, 3, 20)
			say(r, "ContainerCrashed", "it crashes", 4, 20)
		}, nil},
		{"a keyed request fails", func(r *ordinary.Record) { become(r.Keyed, ordinary.Failed, 3, 3.5) }, []ordinary.Rule{ordinary.KeyedFailed}},
		{"nobody reaches the application for a moment", func(r *ordinary.Record) {
			become(r.Keyed, ordinary.Failed, 3, 8)
			become(r.Unkeyed, ordinary.Failed, 3, 8)
			become(r.Twin, ordinary.Failed, 3, 8)
		}, nil},
		{"nobody reaches the application for long, and status says Routed", func(r *ordinary.Record) {
			become(r.Keyed, ordinary.Failed, 3, 40)
			become(r.Unkeyed, ordinary.Failed, 3, 40)
			become(r.Twin, ordinary.Failed, 3, 40)
		}, []ordinary.Rule{ordinary.KeyedFailed}},

		{"status gives no reason", func(r *ordinary.Record) { say(r, "", "", 3, 6) }, []ordinary.Rule{ordinary.NoReason}},
		{"status fails", func(r *ordinary.Record) { r.Truths[3] = ordinary.Truth{Begin: at(6), End: at(7), Err: "no"} }, []ordinary.Rule{ordinary.NoReason}},
		{"the printed command fixes it", func(r *ordinary.Record) { r.Steps[0].Fix = &ordinary.Fix{Command: "x", Worked: true} }, nil},
		{"the printed command does not fix it", func(r *ordinary.Record) { r.Steps[0].Fix = &ordinary.Fix{Command: "x"} }, []ordinary.Rule{ordinary.NotFixed}},
		{"no command is printed", func(r *ordinary.Record) { r.Steps[0].Fix = &ordinary.Fix{} }, []ordinary.Rule{ordinary.NotFixed}},
	})
}

func judge(t *testing.T, all []judged) {
	t.Helper()
	for _, tt := range all {
		t.Run(tt.name, func(t *testing.T) {
			var got []ordinary.Rule
			violations := ordinary.Judge(scene(tt.change))
			for _, v := range violations {
				got = append(got, v.Rule)
			}
			if fmt.Sprint(got) != fmt.Sprint(tt.want) {
				t.Errorf("got %v, want %v", violations, tt.want)
			}
		})
	}
}

func TestASummaryCountsWhatWasDone(t *testing.T) {
	s := ordinary.NewSummary(7, 2)
	s.Add(scene(func(r *ordinary.Record) {
		r.Steps[0].Err, r.Steps[0].TwinErr, r.Steps[0].Fix = "no", "no", &ordinary.Fix{Command: "x", Worked: true}
	}))
	s.Add(scene(func(*ordinary.Record) {}))
	s.Found = []ordinary.Found{{Name: "seed-7-2", Sequence: ordinary.Sequence{{Kind: ordinary.Route}}, Again: true,
		Violations: []ordinary.Violation{{Rule: ordinary.Silent, Step: 0, Detail: "for long"}}}}
	for _, want := range []string{"seed 7, 0s: 2 sequences, 2 operations of 1 kinds, 472 requests without a key (236 to twins), 236 with one, 58 answers of status, 1 printed commands run: 1 violations"} {
		if got := s.Line(); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
	for _, want := range []string{"| restart | 2 | 1 |", "seed-7-2 (broken again)", "```\nroute\n```", "- silent in step 1: for long"} {
		if !strings.Contains(s.Markdown(), want) {
			t.Errorf("no %q in\n%s", want, s.Markdown())
		}
	}
}
