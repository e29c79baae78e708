package policies

import (
	"slices"
	"testing"

	networkingv1 "k8s.io/api/networking/v1"
)

// without returns the scene as it is when somebody deletes a policy of the users' and runs nothing after it: what `route` and `fork`
// made of it is still there.
func (s *scene) without(name string) *scene {
	gone := func(p networkingv1.NetworkPolicy) bool { return p.Namespace == namespace && p.Name == name }
	now := *s
	now.users = slices.DeleteFunc(slices.Clone(s.users), gone)
	now.routed = slices.DeleteFunc(slices.Clone(s.routed), gone)
	now.view.Policies = slices.DeleteFunc(slices.Clone(s.view.Policies), gone)
	return &now
}

// A fork's policies are made of those there are at `fork`. One that lies beside a policy which is deleted since isolates the pods of
// its selector until the sandbox is forked again, or deleted. This is the limit that the README tells; that forking again ends it is
// what holds.
func TestAPolicyThatIsDeletedIsFollowedWhenForkedAgain(t *testing.T) {
	stale, deleted := 0, 0
	for _, set := range sets {
		s := newScene(t, parse(t, set.specs))
		for _, p := range s.users {
			if p.Namespace != namespace {
				continue
			}
			deleted++
			now := s.without(p.Name)
			if noticed := now.judged(planned(s.plan)).noticed; len(noticed) > 0 {
				stale++
				t.Logf("%s, without %s: %v", set.name, p.Name, noticed)
			}
			now.plan = s.planFork(t, "pr-1", &now.view)
			if noticed := now.judged(planned(now.plan)).noticed; len(noticed) > 0 {
				t.Errorf("%s, without %s, forked again: others notice the fork: %v", set.name, p.Name, noticed)
			}
		}
	}
	t.Logf("of %d policies deleted, %d left pods isolated by a fork's", deleted, stale)
	if stale == 0 {
		t.Error("none left pods isolated: the README's limit holds no more, or the judge does not look")
	}
}

// A fork that keeps labels of its baseline's is judged by the same sets: policies that select or admit by a label it keeps hold for it
// as they are.
func TestForkThatKeepsLabelsReachesAndIsReachedByTheSame(t *testing.T) {
	for _, set := range sets {
		t.Run(set.name, func(t *testing.T) {
			s := newScene(t, parse(t, set.specs))
			s.forkWith(t, "pr-1", "tier")
			if s.fork.labels["tier"] != "backend" {
				t.Fatalf("the fork has labels %v", s.fork.labels)
			}
			s.accept(t)
		})
	}
}
