package printer

import (
	"fmt"
	"io"
	"net/url"
	"time"

	"k8s.io/apimachinery/pkg/runtime"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/operate"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan/sandboxes"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/share"
)

// PrintSandbox prints a sandbox's objects: one after the other if the format allows it, else as a list.
func (p *Objects) PrintSandbox(s *sandboxes.Sandbox) error {
	var objects []runtime.Object
	if s.ConfigMap != nil {
		objects = append(objects, typed(s.ConfigMap))
	}
	for i := range s.Policies {
		objects = append(objects, typedPolicy(&s.Policies[i]))
	}
	for i := range s.Forks {
		objects = append(objects, typedFork(&s.Forks[i]))
	}
	return p.PrintAll("", objects)
}

// PrintDeleted prints the objects of sandboxes that were deleted, each sandbox's ConfigMap last.
func (p *Objects) PrintDeleted(gone []sandboxes.Sandbox) error {
	var objects []runtime.Object
	for i := range gone {
		s := &gone[i]
		for j := range s.Policies {
			objects = append(objects, typedPolicy(&s.Policies[j]))
		}
		for j := range s.Forks {
			objects = append(objects, typedFork(&s.Forks[j]))
		}
		if s.ConfigMap != nil {
			objects = append(objects, typed(s.ConfigMap))
		}
	}
	return p.PrintAll("deleted", objects)
}

// PrintExtended prints sandboxes that were extended, with their new lifetimes unless -o requests objects.
func (p *Objects) PrintExtended(all []operate.Extended, now time.Time) error {
	if p.Structured() {
		objects := make([]runtime.Object, len(all))
		for i, e := range all {
			objects[i] = typed(e.ConfigMap)
		}
		return p.PrintEach("extended", objects)
	}
	for _, e := range all {
		verb := "extended"
		if e.Unchanged {
			verb = "unchanged"
		}
		if err := p.Print(verb, typed(e.ConfigMap)); err != nil {
			return err
		}
		fmt.Fprintf(p.Out, "sandbox %s: %s\n", e.Sandbox.Name, expiry(e.Expires, now.Truncate(time.Second)))
	}
	return nil
}

// Link prints the link of a shared preview to out, and until when it is valid to errOut.
func Link(out, errOut io.Writer, shared *operate.Shared) {
	fmt.Fprintf(out, "%s?%s=%s\n", shared.URL, share.Parameter, url.QueryEscape(shared.Token))
	fmt.Fprintf(errOut, "whoever has the link is let in until %s\n", until(shared))
}

// Token prints the token of a shared preview to out, and how to use it to errOut.
func Token(out, errOut io.Writer, shared *operate.Shared) {
	fmt.Fprintln(out, shared.Token)
	fmt.Fprintf(errOut, "lets in at %s until %s: curl -H \"Authorization: Bearer $TOKEN\" %s\n",
		shared.URL, until(shared), shared.URL)
}

func until(shared *operate.Shared) string { return shared.Expires.Local().Format(time.RFC3339) }
