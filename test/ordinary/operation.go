// Package ordinary judges what the product says and touches while people go on with their ordinary work. It draws random sequences of
// operations, decides from what was observed during one whether a promise was broken, and shrinks a sequence that broke one.
//
// Everything in this package is pure. Package live performs sequences on a cluster and observes them.
package ordinary

import (
	"fmt"
	"slices"
	"strings"

	"github.com/kubectl-sandbox/kubectl-sandbox/test/appliers"
)

// A Kind is one kind of operation.
type Kind string

// Kinds of operations. Those of the first group apply the manifests as they are with the tool of their name; those of the second
// change the manifests first, and are applied with any tool.
const (
	ApplyClient       Kind = "apply-client"
	ApplyServer       Kind = "apply-server"
	ApplyServerForced Kind = "apply-server-forced"
	Replace           Kind = "replace"
	Helm3Upgrade      Kind = "helm3-upgrade"
	Helm4Upgrade      Kind = "helm4-upgrade"
	FluxApply         Kind = "flux-apply"
	ArgoCDSync        Kind = "argocd-sync"
	ArgoCDServerSync  Kind = "argocd-sync-server-side"

	NewImage       Kind = "new-image"
	NewPortNumber  Kind = "new-port-number"
	NamePort       Kind = "name-port"
	RenamePort     Kind = "rename-port"
	TargetByName   Kind = "target-by-name"
	TargetByNumber Kind = "target-by-number"
	SecondService  Kind = "second-service"
	DropSecond     Kind = "drop-second-service"
	NewSelector    Kind = "new-selector"

	Helm3Rollback  Kind = "helm3-rollback"
	Helm4Rollback  Kind = "helm4-rollback"
	Edit           Kind = "edit"
	SetEnv         Kind = "set-env"
	PatchService   Kind = "patch-service"
	Undo           Kind = "undo"
	Restart        Kind = "restart"
	Pause          Kind = "pause"
	Resume         Kind = "resume"
	ScaleToZero    Kind = "scale-to-zero"
	ScaleUp        Kind = "scale-up"
	DeleteWorkload Kind = "delete-workload-and-create"
	DeleteService  Kind = "delete-service-and-create"
	DeletePods     Kind = "delete-pods"
	Drain          Kind = "drain"
	AddAutoscaler  Kind = "add-autoscaler"
	DropAutoscaler Kind = "drop-autoscaler"
	WebhookAway    Kind = "webhook-away-and-back"

	Route         Kind = "route"
	Unroute       Kind = "unroute"
	Fork          Kind = "fork"
	ForkUpdate    Kind = "fork-update"
	ForkCrash     Kind = "fork-crash"
	Rebase        Kind = "rebase"
	DeleteSandbox Kind = "delete-sandbox"
)

// An Operation is a Kind with its choices.
type Operation struct {
	Kind Kind
	// Way is the tool that applies changed manifests; empty for kinds that apply none, or name their tool themselves.
	Way appliers.Way
	// Choice picks among what the kind lets one choose; its meaning is the kind's.
	Choice int
}

func (o Operation) String() string {
	words := []string{string(o.Kind)}
	if o.Way != "" {
		words = append(words, "by", o.Way.Slug())
	}
	if o.Choice != 0 {
		words = append(words, fmt.Sprint(o.Choice))
	}
	return strings.Join(words, " ")
}

// Own says that only users of the product perform the operation: the twin without the product does nothing meanwhile.
func (o Operation) Own() bool {
	switch o.Kind {
	case Route, Unroute, Fork, ForkUpdate, ForkCrash, Rebase, DeleteSandbox, WebhookAway:
		return true
	}
	return false
}

// Forks says whether the operation is one after which requests reach the fork.
func (o Operation) Forks() bool { return o.Kind == Fork || o.Kind == ForkUpdate || o.Kind == Rebase }

// Applies returns the tool that the operation applies manifests with, if it does.
func (o Operation) Applies() (appliers.Way, bool) {
	way, ok := map[Kind]appliers.Way{
		ApplyClient: appliers.Client, ApplyServer: appliers.Server, ApplyServerForced: appliers.ServerForced, Replace: appliers.Replace,
		Helm3Upgrade: appliers.Helm3, Helm4Upgrade: appliers.Helm4, FluxApply: appliers.Flux,
		ArgoCDSync: appliers.ArgoCD, ArgoCDServerSync: appliers.ArgoCDServerSide,
	}[o.Kind]
	if ok {
		return way, true
	}
	return o.Way, o.Way != ""
}

// a rule says when a kind of operation makes sense, and what it makes of the state.
type rule struct {
	kind Kind
	// weight is how often it is drawn, beside others.
	weight int
	// ways says that it is applied with any tool.
	ways bool
	// choices is how many there are; 0 as 1.
	choices int
	allowed func(State) bool
	effect  func(*State, int)
}

// rules returns one rule for each kind.
func rules() []rule {
	deployed := func(s State) bool { return s.Replicas > 0 && !s.Paused }
	always := func(State) bool { return true }
	nothing := func(*State, int) {}
	apply := func(k Kind, effect func(*State, int)) rule {
		return rule{kind: k, weight: 3, allowed: always, effect: effect}
	}
	change := func(k Kind, allowed func(State) bool, effect func(*State, int)) rule {
		return rule{kind: k, weight: 4, ways: true, allowed: allowed, effect: effect}
	}
	return slices.Concat([]rule{
		apply(ApplyClient, nothing), apply(ApplyServer, nothing), apply(ApplyServerForced, nothing), apply(Replace, nothing),
		apply(Helm3Upgrade, func(s *State, _ int) { s.Helm3++ }), apply(Helm4Upgrade, func(s *State, _ int) { s.Helm4++ }),
		apply(FluxApply, nothing), apply(ArgoCDSync, nothing), apply(ArgoCDServerSync, nothing),

		change(NewImage, always, func(s *State, _ int) { s.Image = (s.Image + 1) % Images }),
		change(NewPortNumber, deployed, func(s *State, _ int) { s.Port = 1 - s.Port }),
		change(NamePort, func(s State) bool { return s.Name == 0 }, func(s *State, _ int) { s.Name = 1 }),
		change(RenamePort, func(s State) bool { return s.Name > 0 && deployed(s) }, func(s *State, _ int) { s.Name = 3 - s.Name }),
		change(TargetByName, func(s State) bool { return s.Name > 0 && !s.ByName && deployed(s) }, func(s *State, _ int) { s.ByName = true }),
		change(TargetByNumber, func(s State) bool { return s.ByName }, func(s *State, _ int) { s.ByName = false }),
		change(SecondService, func(s State) bool { return !s.Second }, func(s *State, _ int) { s.Second = true }),
		change(NewSelector, always, func(s *State, _ int) { s.Selector = !s.Selector }),
	}, byHand(deployed, always, nothing), own(deployed))
}

// byHand are the rules of what people do to objects by kubectl or Helm.
func byHand(deployed, always func(State) bool, nothing func(*State, int)) []rule {
	hand := func(k Kind, allowed func(State) bool, effect func(*State, int)) rule {
		return rule{kind: k, weight: 3, allowed: allowed, effect: effect}
	}
	// Back to the first revision that is left, the second and so on; without a number, to the one before.
	undo := hand(Undo, func(s State) bool { return !s.Paused }, nothing)
	undo.weight, undo.choices = 8, 4
	return []rule{
		undo,
		hand(DropSecond, func(s State) bool { return s.Second }, func(s *State, _ int) { s.Second = false }),
		hand(Helm3Rollback, func(s State) bool { return s.Helm3 > 1 }, nothing),
		hand(Helm4Rollback, func(s State) bool { return s.Helm4 > 1 }, nothing),
		hand(Edit, always, nothing), hand(SetEnv, always, nothing),
		hand(PatchService, func(s State) bool { return !s.ByName }, nothing),
		hand(Restart, func(s State) bool { return !s.Paused }, nothing),
		hand(Pause, func(s State) bool { return !s.Paused }, func(s *State, _ int) { s.Paused = true }),
		{kind: Resume, weight: 20, allowed: func(s State) bool { return s.Paused }, effect: func(s *State, _ int) { s.Paused = false }},
		hand(ScaleToZero, func(s State) bool { return s.Replicas > 0 && !s.Autoscaled }, func(s *State, _ int) { s.Replicas = 0 }),
		{kind: ScaleUp, weight: 20, choices: 2, allowed: func(s State) bool { return s.Replicas == 0 }, effect: func(s *State, n int) { s.Replicas = n + 1 }},
		hand(DeleteWorkload, always, func(s *State, _ int) { s.Paused, s.Replicas, s.Remade = false, max(1, s.Replicas), s.Routed }),
		hand(DeleteService, always, func(s *State, _ int) { s.Remade = s.Routed }),
		hand(DeletePods, deployed, nothing), hand(Drain, deployed, nothing),
		hand(AddAutoscaler, func(s State) bool { return !s.Autoscaled && deployed(s) }, func(s *State, _ int) { s.Autoscaled = true }),
		hand(DropAutoscaler, func(s State) bool { return s.Autoscaled }, func(s *State, _ int) { s.Autoscaled = false }),
	}
}

// own are the rules of what users of the product do.
func own(deployed func(State) bool) []rule {
	forked := func(s State) bool { return s.Forked && deployed(s) }
	return []rule{
		{kind: WebhookAway, weight: 1, allowed: deployed, effect: func(*State, int) {}},
		{kind: Route, weight: 30, allowed: func(s State) bool { return (!s.Routed || s.Remade) && deployed(s) }, effect: func(s *State, _ int) { s.Routed, s.Remade = true, false }},
		{kind: Unroute, weight: 2, choices: 2, allowed: func(s State) bool { return s.Routed && deployed(s) }, effect: func(s *State, n int) {
			s.Routed = s.Forked && n == 0
			s.Remade = s.Remade && s.Routed
		}}, // refused without --force
		{kind: Fork, weight: 60, choices: 2, allowed: func(s State) bool { return s.Routed && !s.Forked && deployed(s) }, effect: func(s *State, n int) { s.Forked, s.Crashing, s.ToBaseline = true, false, n == 1 }},
		{kind: ForkUpdate, weight: 3, allowed: func(s State) bool { return forked(s) && s.Routed }, effect: func(s *State, _ int) { s.Crashing = false }},
		{kind: ForkCrash, weight: 2, allowed: func(s State) bool { return forked(s) && s.Routed && !s.Crashing }, effect: func(s *State, _ int) { s.Crashing = true }},
		{kind: Rebase, weight: 3, allowed: forked, effect: func(*State, int) {}},
		{kind: DeleteSandbox, weight: 2, allowed: func(s State) bool { return s.Forked }, effect: func(s *State, _ int) { s.Forked = false }},
	}
}

// Kinds returns every kind of operation.
func Kinds() []Kind {
	var all []Kind
	for _, r := range rules() {
		all = append(all, r.kind)
	}
	return all
}
