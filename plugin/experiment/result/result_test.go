package result

import (
	"bytes"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"
)

func header(kind string) Header {
	at := time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC)
	return Header{APIVersion: APIVersion, Kind: kind, Probe: "v1", Start: at, End: at.Add(time.Minute), Arms: []Arm{
		{Name: NameBaseline, Role: RoleBaseline}, {Name: NameControl, Role: RoleControl}, {Name: "a", Role: RoleVariant},
	}}
}

func aLoad() Load {
	block := Block{Sent: 5, Latencies: Histogram{{Micros: 900, N: 2}, {Micros: 1100, N: 1}, {Micros: 10_000_000, N: 1}},
		Errors: map[ErrorClass]int{ErrorTimeout: 1, ErrorServer: 1}}
	return Load{Header: header(KindLoad), Rate: 50, Turn: 1, Round: 2, Planned: 1, Timeout: 10, Totals: []Total{{}, {}, {ServedBy: map[string]int{"pod": 4}}},
		Rounds: []Round{{Blocks: []Block{block, block, block}}}}
}

func aContract() Contract {
	return Contract{Header: header(KindContract), Protocol: ProtocolOpenAPI, Operations: []Operation{{Name: "GET /"}},
		Findings: []Finding{{Arm: "a", Reason: ReasonFieldGone, Operation: "GET /", Path: "/name", Message: "gone"}}}
}

func written[T Load | Contract](t *testing.T, v T) string {
	t.Helper()
	var b strings.Builder
	if err := Write(&b, v); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestReadLoad_ReturnsTheLastOfTheLog(t *testing.T) {
	first, last := aLoad(), aLoad()
	first.Incomplete = "it is still running"
	whole := written(t, last)
	for name, tail := range map[string]string{
		"at the end":                     "",
		"before other lines":             "time=2026 level=INFO msg=done\nmore",
		"before one cut off":             whole[:len(whole)/2],
		"before one that is too long":    marker + strings.Repeat("A", maxLine) + "\n",
		"before one within another line": "msg=" + whole,
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ReadLoad(strings.NewReader("time=2026 msg=begins\n" + written(t, first) + whole + tail))
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, last) {
				t.Errorf("got %+v, want %+v", got, last)
			}
		})
	}
}

func TestReadContract(t *testing.T) {
	want := aContract()
	got, err := ReadContract(strings.NewReader(written(t, want)))
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v; want %+v", got, err, want)
	}
}

func TestRead_RefusesWhatIsNoResult(t *testing.T) {
	if _, err := ReadLoad(strings.NewReader("nothing\n")); !errors.Is(err, ErrNone) {
		t.Errorf("got %v, want ErrNone", err)
	}
	change := func(f func(*Load)) string {
		l := aLoad()
		f(&l)
		return written(t, l)
	}
	for name, log := range map[string]string{
		"no base64":                 marker + "!!!\n",
		"no gzip":                   marker + "aGVsbG8=\n",
		"another kind":              written(t, aContract()),
		"another version":           change(func(l *Load) { l.APIVersion = "v0" }),
		"no arms":                   change(func(l *Load) { l.Arms, l.Totals, l.Rounds = nil, nil, nil }),
		"two arms of a name":        change(func(l *Load) { l.Arms[1].Name = l.Arms[0].Name }),
		"an unknown role":           change(func(l *Load) { l.Arms[1].Role = "judge" }),
		"a block too few":           change(func(l *Load) { l.Rounds[0].Blocks = l.Rounds[0].Blocks[1:] }),
		"latencies without request": change(func(l *Load) { l.Rounds[0].Blocks[1].Sent = 2 }),
		"a negative count":          change(func(l *Load) { l.Rounds[0].Blocks[1].Latencies = Histogram{{Micros: 1, N: -1}} }),
		"a count beyond memory":     change(func(l *Load) { l.Rounds[0].Blocks[1].Latencies = Histogram{{Micros: 1, N: 1 << 60}} }),
		"durations out of order":    change(func(l *Load) { l.Lateness = Histogram{{Micros: 2, N: 1}, {Micros: 1, N: 1}} }),
	} {
		t.Run(name, func(t *testing.T) {
			if l, err := ReadLoad(strings.NewReader(log)); err == nil || errors.Is(err, ErrNone) {
				t.Errorf("got %+v, %v; want an error", l, err)
			}
		})
	}
}

func TestHistogram_YieldsEachDuration(t *testing.T) {
	h := Histogram{{Micros: 1, N: 2}, {Micros: 5, N: 1}}
	var got []time.Duration
	for d := range h.All() {
		got = append(got, d)
	}
	if want := []time.Duration{1000, 1000, 5000}; !reflect.DeepEqual(got, want) || h.Len() != 3 {
		t.Errorf("got %v of %d, want %v", got, h.Len(), want)
	}
}

func FuzzRead(f *testing.F) {
	var b bytes.Buffer
	_ = Write(&b, aLoad())
	_ = Write(&b, aContract())
	f.Add(b.Bytes())
	f.Add([]byte(marker + "\n"))
	f.Fuzz(func(_ *testing.T, log []byte) {
		if l, err := ReadLoad(bytes.NewReader(log)); err == nil {
			for _, r := range l.Rounds {
				for _, block := range r.Blocks {
					_ = block.Failed()
				}
			}
		}
		_, _ = ReadContract(bytes.NewReader(log))
	})
}
