package ordinary

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"

	"github.com/kubectl-sandbox/kubectl-sandbox/test/appliers"
)

// A Sequence is performed in order, from Start.
type Sequence []Operation

// Encode returns the sequence as text, one operation a line.
func (q Sequence) Encode() string {
	var b strings.Builder
	for _, o := range q {
		fmt.Fprintln(&b, o)
	}
	return b.String()
}

// Parse reads what Encode wrote. Blank lines and those that begin with # are left out.
func Parse(text string) (Sequence, error) {
	var q Sequence
	scanner := bufio.NewScanner(strings.NewReader(text))
	for line := 1; scanner.Scan(); line++ {
		words := strings.Fields(scanner.Text())
		if len(words) == 0 || strings.HasPrefix(words[0], "#") {
			continue
		}
		o, err := parseOperation(words)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", line, err)
		}
		q = append(q, o)
	}
	return q, scanner.Err()
}

func parseOperation(words []string) (Operation, error) {
	o := Operation{Kind: Kind(words[0])}
	r, ok := ruleOf(o.Kind)
	if !ok {
		return o, fmt.Errorf("%q: no such operation", o.Kind)
	}
	words = words[1:]
	if len(words) > 1 && words[0] == "by" {
		at := slices.IndexFunc(appliers.Ways(), func(w appliers.Way) bool { return w.Slug() == words[1] })
		if at < 0 {
			return o, fmt.Errorf("%s by %q: no such tool", o.Kind, words[1])
		}
		o.Way, words = appliers.Ways()[at], words[2:]
	}
	if r.ways != (o.Way != "") {
		return o, fmt.Errorf("%s: a tool is named (by TOOL) for operations that change manifests, and for no others", o.Kind)
	}
	if len(words) > 0 {
		n, err := strconv.Atoi(words[0])
		if err != nil || n < 0 || n >= max(1, r.choices) || len(words) > 1 {
			return o, fmt.Errorf("%s %s: the choice must be one number below %d", o.Kind, strings.Join(words, " "), max(1, r.choices))
		}
		o.Choice = n
	}
	return o, nil
}

func ruleOf(k Kind) (rule, bool) {
	all := rules()
	at := slices.IndexFunc(all, func(r rule) bool { return r.kind == k })
	if at < 0 {
		return rule{}, false
	}
	return all[at], true
}

// Next returns what an operation makes of a state, and whether it makes sense in it at all.
func Next(s State, o Operation) (State, bool) {
	r, ok := ruleOf(o.Kind)
	if !ok || !r.allowed(s) {
		return s, false
	}
	r.effect(&s, o.Choice)
	// A tool that is no longer Helm's leaves its releases as they are.
	if way, applies := o.Applies(); applies && r.ways {
		switch way {
		case appliers.Helm3:
			s.Helm3++
		case appliers.Helm4:
			s.Helm4++
		}
	}
	return s, true
}

// Sensible returns the sequence without the operations that make no sense where they come.
func (q Sequence) Sensible() Sequence {
	var kept Sequence
	s := Start()
	for _, o := range q {
		if next, ok := Next(s, o); ok {
			kept, s = append(kept, o), next
		}
	}
	return kept
}

// End returns the state after the sequence.
func (q Sequence) End() State {
	s := Start()
	for _, o := range q {
		s, _ = Next(s, o)
	}
	return s
}

// A Generator draws operations.
type Generator struct {
	random *rand.Rand
	// Shared says that others use the cluster: what would concern them is not drawn.
	Shared bool
}

// NewGenerator returns a generator that draws the same for the same seed.
func NewGenerator(seed uint64) *Generator {
	return &Generator{random: rand.New(rand.NewPCG(seed, 13))} //nolint:gosec // to be repeatable
}

// Draw returns a sequence of n operations, each of which makes sense where it comes.
func (g *Generator) Draw(n int) Sequence {
	var q Sequence
	s := Start()
	for len(q) < n {
		o := g.operation(s)
		q = append(q, o)
		s, _ = Next(s, o)
	}
	return q
}

func (g *Generator) operation(s State) Operation {
	var candidates []rule
	total := 0
	for _, r := range rules() {
		if r.allowed(s) && (r.kind != WebhookAway || !g.Shared) {
			candidates = append(candidates, r)
			total += r.weight
		}
	}
	at := g.random.IntN(total)
	for _, r := range candidates {
		if at -= r.weight; at >= 0 {
			continue
		}
		o := Operation{Kind: r.kind}
		if r.ways {
			o.Way = appliers.Ways()[g.random.IntN(len(appliers.Ways()))]
		}
		if r.choices > 1 {
			o.Choice = g.random.IntN(r.choices)
		}
		return o
	}
	panic("the weights do not add up") // an operation is always allowed
}
