package notices

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/fork"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/fork/env"
)

// A fork is a Deployment, whatever its baseline is. The notices name what the baseline's kind gives its pods beyond
// that. They are warnings if the template relies on it.

// givenByKind describes a label by which the controller of a kind distinguishes the pods of a workload, and names the
// kind; empty for any other label. Pods of a Deployment have their own pod-template-hash.
func givenByKind(label string) (what, kind string) {
	switch label {
	case appsv1.PodIndexLabel:
		return "the ordinal", "a StatefulSet"
	case appsv1.StatefulSetPodNameLabel:
		return "the stable name", "a StatefulSet"
	case appsv1.ControllerRevisionHashLabelKey:
		return "the revision", "a StatefulSet or DaemonSet"
	case "pod-template-generation":
		return "the revision", "a DaemonSet"
	case "rollouts-pod-template-hash":
		return "the revision", "an Argo Rollout"
	case "batch.kubernetes.io/job-completion-index", "batch.kubernetes.io/job-name", "batch.kubernetes.io/controller-uid":
		return "the place", "a Job"
	}
	return "", ""
}

// kind warns of what a Deployment does not give the fork's pods, and returns in short what they lack without relying
// on it.
func (m *noticeMaker) kind() (lacks string) {
	relied := m.labelsByKind()
	switch m.Workload.Kind() {
	case "StatefulSet":
		relied = m.stableNames(relied) || relied
		if !relied {
			lacks = "ordinals and stable host names, which a StatefulSet gives its pods"
		}
	case "DaemonSet":
		lacks = "a pod on each node, which a DaemonSet has"
		if m.boundToNode() {
			lacks = ""
		}
	}
	m.completion()
	return lacks
}

// labelsByKind warns of fields that are empty in the fork because they read a label that only the baseline's kind
// sets.
func (m *noticeMaker) labelsByKind() (relied bool) {
	template := m.Workload.PodLabels()
	look := func(place, fix string, ref *corev1.ObjectFieldSelector) {
		if ref == nil {
			return
		}
		of, ok := fork.ParseMetadata(ref.FieldPath)
		what, kind := givenByKind(of.Key)
		if _, own := template[of.Key]; !ok || of.Field != "labels" || what == "" || own {
			return
		}
		relied = true
		m.warn("%s is empty in the fork: it is the label %s, %s that %s gives its pods, and a Deployment none%s", place, of.Key, what, kind, fix)
	}
	for _, c := range slices.Concat(m.pod.Spec.InitContainers, m.pod.Spec.Containers) {
		for _, e := range c.Env {
			if e.ValueFrom != nil {
				look(fmt.Sprintf("variable %s of container %s", e.Name, c.Name), "; --env="+e.Name+"=0 gives it a value", e.ValueFrom.FieldRef)
			}
		}
	}
	for _, v := range m.pod.Spec.Volumes {
		var items []corev1.DownwardAPIVolumeFile
		if v.DownwardAPI != nil {
			items = v.DownwardAPI.Items
		}
		if v.Projected != nil {
			for _, s := range v.Projected.Sources {
				if s.DownwardAPI != nil {
					items = append(items, s.DownwardAPI.Items...)
				}
			}
		}
		for _, f := range items {
			look(fmt.Sprintf("file %s of volume %s", f.Path, v.Name), "", f.FieldRef)
		}
	}
	return relied
}

// hostNameWord matches commands and arguments that use their pod's name.
var hostNameWord = regexp.MustCompile(`(?i)\bhostname\b|\bordinal|\bpod_?name\b`)

// stableNames warns if a StatefulSet's pods use their names, which end in an ordinal. warned means that a warning
// about the ordinal was given already.
func (m *noticeMaker) stableNames(warned bool) (relied bool) {
	peer := regexp.MustCompile(`(^|[^a-z0-9.-])` + regexp.QuoteMeta(m.Workload.Name()) + `-[0-9]+([^a-z0-9-]|$)`)
	for _, c := range slices.Concat(m.pod.Spec.InitContainers, m.pod.Spec.Containers) {
		var uses, peers []string
		words := slices.Concat(c.Command, c.Args)
		if slices.ContainsFunc(words, hostNameWord.MatchString) {
			uses = append(uses, "its command")
		}
		if slices.ContainsFunc(words, peer.MatchString) {
			peers = append(peers, "its command")
		}
		for _, e := range c.Env {
			if e.ValueFrom != nil && e.ValueFrom.FieldRef != nil && e.ValueFrom.FieldRef.FieldPath == "metadata.name" && m.refersTo(&c, e.Name) {
				uses = append(uses, "what refers to its variable "+e.Name)
			}
			if peer.MatchString(e.Value) {
				peers = append(peers, "variable "+e.Name)
			}
		}
		if len(uses) > 0 && !warned {
			relied = true
			m.warn("container %s uses its pod's name (%s), which ends in an ordinal in a StatefulSet; the fork's pods have random names and no ordinal", c.Name, strings.Join(uses, ", "))
		}
		if len(peers) > 0 {
			relied = true
			m.warn("container %s names the pods of the StatefulSet (%s): the fork's are not among them, as they have no stable host names", c.Name, strings.Join(peers, ", "))
		}
	}
	return relied
}

// refersTo reports whether a container uses a variable elsewhere in its spec.
func (m *noticeMaker) refersTo(c *corev1.Container, name string) bool {
	texts := slices.Concat(c.Command, c.Args)
	for _, e := range c.Env {
		texts = append(texts, e.Value)
	}
	for _, v := range c.VolumeMounts {
		texts = append(texts, v.SubPathExpr)
	}
	return slices.ContainsFunc(texts, func(s string) bool { return slices.Contains(env.References(s), name) })
}

// boundToNode warns if a DaemonSet's pods serve the node that they run on.
func (m *noticeMaker) boundToNode() bool {
	for _, c := range m.pod.Spec.Containers {
		for _, e := range c.Env {
			if e.ValueFrom == nil || e.ValueFrom.FieldRef == nil {
				continue
			}
			if path := e.ValueFrom.FieldRef.FieldPath; slices.Contains([]string{"spec.nodeName", "status.hostIP", "status.hostIPs"}, path) {
				m.warn("container %s asks for its node (variable %s): a DaemonSet has a pod on each, the fork only where the scheduler puts it, on all others the baseline serves", c.Name, e.Name)
				return true
			}
		}
	}
	return false
}

// completion warns that the fork restarts pods which run to completion in the baseline.
func (m *noticeMaker) completion() {
	policy, _, _ := unstructured.NestedString(m.Template, "spec", "restartPolicy")
	_, limited, _ := unstructured.NestedFieldNoCopy(m.Template, "spec", "activeDeadlineSeconds")
	if policy != "" && policy != string(corev1.RestartPolicyAlways) || limited {
		m.warn("its pods run to completion; the fork is a Deployment, which restarts its pods whenever they end")
	}
}
