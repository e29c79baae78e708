package notices

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// election warns if the fork would take part in the baseline's leader election: its arguments or variables mention
// one, or the holder of a Lease is a pod of the baseline. It does not propose an election of the fork's own. That
// requires a lock whose name can be set and a Role that admits the name, and then two leaders write the same objects.
func (m *noticeMaker) election() {
	by, off := electionOf(m.pod.Spec.Containers)
	if off {
		return
	}
	if by == "" {
		pods := m.podNames()
		for _, l := range m.objects.Leases {
			if h := l.Spec.HolderIdentity; h != nil && pods.MatchString(*h) {
				by = "lease/" + l.Name
				break
			}
		}
	}
	if by != "" {
		m.warn("the fork takes part in the baseline's leader election (%s): it waits while a pod of the baseline leads, and may lead in its place later; "+
			"to keep it out, give it no pods: --replicas=0", by)
	}
}

// A setting is a flag or a variable of a container.
type setting struct {
	shown string // as the warning names it
	name  string // in lower case, in words with dashes between
	value string // empty where it has none, or it is not known
}

var (
	// electionWord matches names of settings of leader elections; that of ingress-nginx is short.
	electionWord = regexp.MustCompile(`leader-?elect|^election-id$`)
	// electionSwitch matches names of settings that only turn the election on.
	electionSwitch = regexp.MustCompile(`(^|-)(enable-)?leader-?elect(ion)?(-enabled?)?$`)
	// electionOff matches prefixes of settings that turn it off.
	electionOff = regexp.MustCompile(`(^|-)(disable|no|skip|without)-leader-?elect`)
	// electionOther matches settings of elections inside the application, such as partition leaders in Kafka.
	electionOther = regexp.MustCompile(`unclean-leader|leader-imbalance|preferred-leader`)
)

// electionOf returns the setting that makes containers elect a leader, empty if there is none, and whether a setting
// turns the election off.
func electionOf(containers []corev1.Container) (by string, off bool) {
	for i := range containers {
		for _, s := range settings(&containers[i]) {
			if !electionWord.MatchString(s.name) || electionOther.MatchString(s.name) {
				continue
			}
			no := slices.Contains([]string{"false", "0", "no", "off"}, strings.ToLower(s.value))
			switch {
			case electionOff.MatchString(s.name):
				if !no {
					return "", true
				}
			case electionSwitch.MatchString(s.name) && no:
				return "", true
			}
			if by == "" {
				by = s.shown
			}
		}
	}
	return by, false
}

// settings returns a container's flags and variables.
func settings(c *corev1.Container) []setting {
	words := func(name string) string {
		return strings.NewReplacer("_", "-", ".", "-").Replace(strings.ToLower(name))
	}
	var found []setting
	for _, e := range c.Env {
		found = append(found, setting{"env " + e.Name, words(e.Name), e.Value})
	}
	for _, arg := range slices.Concat(c.Command, c.Args) {
		if flag, value, _ := strings.Cut(arg, "="); strings.HasPrefix(flag, "-") {
			found = append(found, setting{flag, words(strings.TrimLeft(flag, "-")), value})
		}
	}
	return found
}

// podNames returns a pattern for the holder of a Lease, which is the name of a pod of the workload, often with a
// random suffix.
func (m *noticeMaker) podNames() *regexp.Regexp {
	suffix := `-[a-z0-9]{1,10}-[a-z0-9]{5}` // through a ReplicaSet
	switch m.Workload.Kind() {
	case "StatefulSet":
		suffix = `-[0-9]+`
	case "DaemonSet", "ReplicaSet", "ReplicationController":
		suffix = `-[a-z0-9]{5}`
	}
	return regexp.MustCompile(fmt.Sprintf(`^%s%s($|[^a-z0-9.-])`, regexp.QuoteMeta(m.Workload.Name()), suffix))
}
