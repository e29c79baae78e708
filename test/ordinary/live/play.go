package live

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/kubectl-sandbox/kubectl-sandbox/test/apps"
	"github.com/kubectl-sandbox/kubectl-sandbox/test/ordinary"
	"github.com/kubectl-sandbox/kubectl-sandbox/test/ordinary/client"
)

const (
	sandbox = "pr-1"
	// every is the time between two requests of a client.
	every = 250 * time.Millisecond
	// look is how long a step is watched at least, after everything has settled.
	look = 3 * time.Second
	// longer is how long it is watched where requests do not reach the fork, so that silence shows.
	longer = ordinary.TellWithin + 2*ordinary.PollEvery
	// heal is how long the product may take to route again by itself, and fixed how long after its command was run.
	heal, fixed = 20 * time.Second, 60 * time.Second
	// commandTimeout is given to commands of the product.
	commandTimeout = "--timeout=45s"
)

// A play is one sequence being performed.
type play struct {
	ours, twin *side
	witness    *witness
	record     ordinary.Record
	forks      int // how often the fork was changed

	mu       sync.Mutex
	sandbox  []ordinary.Span // the last is open while there is a sandbox
	unkeyed  *client.Client
	twins    *client.Client
	keyed    *client.Client
	stopSend context.CancelFunc
	sent     sync.WaitGroup
}

// Play performs a sequence, and returns what it observed. It ends where the context does, with the steps that were done.
func (c *Cluster) Play(ctx context.Context, q ordinary.Sequence, say func(string, ...any)) (_ ordinary.Record, err error) {
	p := &play{record: ordinary.Record{Sequence: q}}
	defer func() {
		if ctx.Err() != nil {
			err = nil // it was broken off, which is no fault
		}
		cleaning, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
		defer cancel()
		for _, s := range []*side{p.ours, p.twin} {
			if s != nil {
				err = errors.Join(err, c.deleteNamespace(cleaning, s.namespace))
			}
		}
	}()
	if p.ours, err = c.newSide(ctx, false); err != nil {
		return p.record, err
	}
	if p.twin, err = c.newSide(ctx, true); err != nil {
		return p.record, err
	}
	if err := p.begin(ctx); err != nil {
		return p.record, err
	}
	defer p.end()
	state := ordinary.Start()
	for i, o := range q {
		after, ok := ordinary.Next(state, o)
		if !ok {
			continue
		}
		step, err := p.step(ctx, i, o, after)
		if ctx.Err() != nil {
			return p.end(), nil // a step that was broken off says nothing
		}
		if err != nil {
			return p.end(), fmt.Errorf("step %d, %s: %w", i+1, o, err)
		}
		say("%s: step %d: %s: %s %s", p.ours.namespace, i+1, o, step.End.Sub(step.Begin).Round(100*time.Millisecond), firstLine(step.Err))
		p.record.Steps = append(p.record.Steps, step)
		if step.TwinErr == "" {
			state = after // else nothing came of it
		}
		if step.Fix != nil && step.Fix.Worked {
			state.Remade = false // it is routed again
		}
		if step.Diverged || p.broken() {
			break // what follows may follow from it
		}
	}
	if p.exists() && unserved(p.keyed, time.Now().Add(-ordinary.TellWithin)) {
		_ = pass(ctx, longer) // status has as long to tell of the last request as of all others
	}
	return p.end(), nil
}

// begin brings up both applications and their clients.
func (p *play) begin(ctx context.Context) error {
	err := p.both(func(s *side) error {
		if _, err := s.tools.Apply(ctx, "kubectl apply", s.release(ordinary.Start().Manifests())); err != nil {
			return err
		}
		return s.settled(ctx, ordinary.Start())
	})
	if err != nil {
		return err
	}
	sending, stop := context.WithCancel(ctx)
	p.stopSend = stop
	for _, s := range []*side{p.ours, p.twin} {
		s.readAddress(ctx)
		p.sent.Go(func() { s.watchAddress(sending) })
	}
	at := func(s *side) func() string { return func() string { return *s.address.Load() } }
	p.unkeyed = &client.Client{Address: at(p.ours), Every: every}
	p.twins = &client.Client{Address: at(p.twin), Every: every}
	p.keyed = &client.Client{Address: at(p.ours), Every: every, Key: sandbox}
	p.witness = &witness{cluster: p.ours.Cluster, namespace: p.ours.namespace}
	time.Sleep(2 * time.Second) // until the node's rules follow the endpoints, which nothing tells
	for _, c := range []*client.Client{p.unkeyed, p.twins, p.keyed} {
		p.sent.Go(func() { c.Run(sending) })
	}
	p.sent.Go(func() { p.witness.run(sending, p.exists) })
	return nil
}

// end stops the clients and returns the record.
func (p *play) end() ordinary.Record {
	p.stopSend()
	p.sent.Wait()
	p.closeSandbox(time.Now())
	return p.observed()
}

// observed returns the record as far as it goes.
func (p *play) observed() ordinary.Record {
	p.mu.Lock()
	defer p.mu.Unlock()
	r := p.record
	r.Unkeyed, r.Twin, r.Keyed, r.Truths = p.unkeyed.Requests(), p.twins.Requests(), p.keyed.Requests(), p.witness.all()
	r.Sandbox = slices.Clone(p.sandbox)
	if n := len(r.Sandbox); n > 0 && r.Sandbox[n-1].End.IsZero() {
		r.Sandbox[n-1].End = time.Now()
	}
	return r
}

// broken says that a promise was broken so long ago that nothing said since can change that.
func (p *play) broken() bool {
	past := time.Now().Add(-ordinary.TellWithin - ordinary.PollEvery)
	return slices.ContainsFunc(ordinary.Judge(p.observed()), func(v ordinary.Violation) bool { return p.record.Steps[v.Step].End.Before(past) })
}

// step performs one operation on both sides, waits until all has settled, and watches what becomes of it.
func (p *play) step(ctx context.Context, i int, o ordinary.Operation, after ordinary.State) (ordinary.Step, error) {
	if o.Kind == ordinary.WebhookAway {
		p.ours.steady.Lock()
		defer p.ours.steady.Unlock()
	} else {
		p.ours.steady.RLock()
		defer p.ours.steady.RUnlock()
	}
	s := ordinary.Step{Operation: o, After: after, Begin: time.Now()}
	err, twinErr := p.perform(ctx, o, i, after)
	s.Done, s.Err, s.TwinErr = time.Now(), text(err), text(twinErr)
	if err != nil && twinErr != nil {
		s.Diverged = p.diverged(ctx)
	}
	// A rollout that does not end shows in what requests get, on one side or on both.
	_ = p.both(func(side *side) error { return side.settled(ctx, after) })
	if err := pass(ctx, look); err != nil {
		return s, err
	}
	switch {
	case s.Err != "" && after.Remade && after.Routable() && o.Forks():
		s.Fix = p.forkAgain(ctx, o, after, s.Err)
	case !p.exists():
	case after.Routable() && s.Err == "" && served(p.twins):
		s.Fix = p.fix(ctx)
	case !served(p.keyed):
		if err := pass(ctx, longer); err != nil {
			return s, err
		}
	}
	s.End = time.Now()
	return s, ctx.Err()
}

// diverged says whether the Services of the two applications state other numbers. After a server-side apply that failed, they may: the
// twin's Service has a conflict as well, and nobody owns the targetPort of a routed one.
func (p *play) diverged(ctx context.Context) bool {
	ours, err := p.ours.targetPorts(ctx)
	twins, twinErr := p.twin.targetPorts(ctx)
	return err == nil && twinErr == nil && !slices.Equal(ours, twins)
}

func (p *play) perform(ctx context.Context, o ordinary.Operation, i int, after ordinary.State) (err, twinErr error) {
	if o.Own() {
		return p.own(ctx, o, after), nil
	}
	if o.Kind == ordinary.Undo {
		return undo(ctx, p.ours, p.twin, o.Choice)
	}
	var both sync.WaitGroup
	both.Go(func() { err = p.ours.perform(ctx, o, i, after) })
	both.Go(func() { twinErr = p.twin.perform(ctx, o, i, after) })
	both.Wait()
	return err, twinErr
}

// own does what users of the product do.
func (p *play) own(ctx context.Context, o ordinary.Operation, after ordinary.State) error {
	run := func(args ...string) error {
		_, err := p.ours.run(ctx, "kubectl-sandbox", append(args, "-n", p.ours.namespace)...)
		return err
	}
	fork := func(more ...string) error {
		p.forks++
		err := run(append([]string{"fork", workload, "--name=" + sandbox, "--key=" + sandbox, commandTimeout,
			"--env=PODINFO_UI_MESSAGE=" + client.Forked + "-" + strconv.Itoa(p.forks)}, more...)...)
		if err == nil {
			p.openSandbox()
		}
		return err
	}
	image := "--image=" + apps.Podinfo(ordinary.Images+1+p.forks%2)
	switch o.Kind {
	case ordinary.Route:
		return run("route", workload, commandTimeout)
	case ordinary.Unroute:
		if o.Choice == 1 {
			return run("unroute", workload, commandTimeout, "--force")
		}
		return run("unroute", workload, commandTimeout)
	case ordinary.Fork:
		unready := "--when-unready=error"
		if after.ToBaseline {
			unready = "--when-unready=baseline"
		}
		return fork(unready, image)
	case ordinary.ForkUpdate:
		return fork(image)
	case ordinary.ForkCrash:
		return fork("--image=" + apps.Podcli) // which knows none of the app's arguments
	case ordinary.Rebase:
		return run("rebase", sandbox, commandTimeout)
	case ordinary.DeleteSandbox:
		p.closeSandbox(time.Now())
		return run("delete", sandbox, commandTimeout)
	case ordinary.WebhookAway:
		return p.withoutWebhook(ctx)
	}
	return fmt.Errorf("%s: users of the product do no such thing", o.Kind)
}

// withoutWebhook has the workload rolled out while the webhook is away.
func (p *play) withoutWebhook(ctx context.Context) (err error) {
	back, err := p.ours.takeWebhookAway(ctx)
	if back != nil {
		// It comes back whatever happens: it is everybody's.
		defer func() { err = errors.Join(err, back(context.WithoutCancel(ctx))) }()
	}
	if err != nil {
		return err
	}
	if err := p.ours.kubectl(ctx, "rollout", "restart", workload); err != nil {
		return err
	}
	return p.ours.settled(ctx, ordinary.Start())
}

// fix waits until the product says that requests reach the fork; if it goes on saying otherwise, the command that it prints is run.
func (p *play) fix(ctx context.Context) *ordinary.Fix {
	t, ok := p.routed(ctx, heal)
	if ok || ctx.Err() != nil {
		return nil
	}
	f := &ordinary.Fix{Command: t.Command}
	if f.Command == "" {
		f.Err = "status says " + t.Reason + " " + t.Message + t.Err
		return f
	}
	f.Err = text(p.paste(ctx, f.Command))
	t, f.Worked = p.routed(ctx, fixed)
	if !f.Worked {
		f.Err += " and status says " + t.Reason + " " + t.Message
	}
	return f
}

// forkAgain runs the command that a fork which failed has printed, and forks again.
func (p *play) forkAgain(ctx context.Context, o ordinary.Operation, after ordinary.State, failed string) *ordinary.Fix {
	f := &ordinary.Fix{Err: failed}
	if hint := regexp.MustCompile(`(?m)^hint: .*: (kubectl .*)$`).FindStringSubmatch(failed); hint != nil {
		f.Command = hint[1]
		err := p.paste(ctx, f.Command)
		if err == nil {
			err = p.own(ctx, o, after)
		}
		f.Err, f.Worked = text(err), err == nil
	}
	return f
}

// paste runs a command as a person would who pastes it.
func (p *play) paste(ctx context.Context, command string) error {
	_, err := p.ours.runWith(ctx, []string{"HOME=" + p.ours.folder}, "/bin/bash", "-c", command)
	return err
}

// routed waits until the product says that requests reach the fork, and returns its last answer.
func (p *play) routed(ctx context.Context, within time.Duration) (t ordinary.Truth, ok bool) {
	// An answer that the end of this wait broke off would be none: so the last one may come after it.
	err := p.ours.until(ctx, within, "the sandbox is routed", func(context.Context) (bool, error) {
		t = p.witness.ask(ctx)
		return t.Routed, nil
	})
	return t, err == nil
}

// served says that the last request of a client was.
func served(c *client.Client) bool {
	all := c.Requests()
	return len(all) > 0 && all[len(all)-1].Outcome == ordinary.Served
}

// unserved says that a request of a client since a time was not served.
func unserved(c *client.Client, since time.Time) bool {
	return slices.ContainsFunc(c.Requests(), func(q ordinary.Request) bool { return q.At.After(since) && q.Outcome != ordinary.Served })
}

func (p *play) exists() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.sandbox) > 0 && p.sandbox[len(p.sandbox)-1].End.IsZero()
}

func (p *play) openSandbox() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.sandbox); n == 0 || !p.sandbox[n-1].End.IsZero() {
		p.sandbox = append(p.sandbox, ordinary.Span{Begin: time.Now()})
	}
}

func (p *play) closeSandbox(at time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.sandbox); n > 0 && p.sandbox[n-1].End.IsZero() {
		p.sandbox[n-1].End = at
	}
}

// both does something on both sides at once.
func (p *play) both(do func(*side) error) error {
	var all sync.WaitGroup
	errs := make([]error, 2)
	for i, s := range []*side{p.ours, p.twin} {
		all.Go(func() { errs[i] = do(s) })
	}
	all.Wait()
	return errors.Join(errs...)
}

// pass lets time pass: what is awaited is that nothing happens.
func pass(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

func firstLine(s string) string {
	s, _, _ = strings.Cut(s, "\n")
	return s
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
