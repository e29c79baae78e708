package inject

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"sort"
	"strconv"
	"strings"

	"gomodules.xyz/jsonpatch/v2"
	corev1 "k8s.io/api/core/v1"
)

// Patch returns the RFC 6902 patch from before to after. It compares these two, not the raw object with after, which
// would remove all fields that are newer than this program. Positions stay valid because Pod only appends to lists.
//
// It encodes and compares only the parts that differ. Users may create large pods, and encoding both pods in whole took
// many times their size. Patch fails if a part differs that Pod should not change, so that no change is lost silently.
func Patch(before, after *corev1.Pod) ([]jsonpatch.Operation, error) {
	if !reflect.DeepEqual(uncompared(before), uncompared(after)) {
		return nil, fmt.Errorf("pod %s is changed where no patch is made: report this", before.Name)
	}
	var p patch
	p.strings("/metadata/annotations", before.Annotations, after.Annotations)
	p.containers("/spec/containers", before.Spec.Containers, after.Spec.Containers)
	p.containers("/spec/initContainers", before.Spec.InitContainers, after.Spec.InitContainers)
	appended(&p, "/spec/volumes", before.Spec.Volumes, after.Spec.Volumes)
	appended(&p, "/spec/readinessGates", before.Spec.ReadinessGates, after.Spec.ReadinessGates)
	return p.ops, p.err
}

// uncompared returns a pod without the parts that Patch compares one by one.
func uncompared(pod *corev1.Pod) *corev1.Pod {
	r := *pod
	r.Annotations = nil
	r.Spec.Containers, r.Spec.InitContainers, r.Spec.Volumes, r.Spec.ReadinessGates = nil, nil, nil, nil
	return &r
}

// A patch collects operations, until a part cannot be compared.
type patch struct {
	ops []jsonpatch.Operation
	err error
}

func (p *patch) add(path string, value any) {
	p.ops = append(p.ops, jsonpatch.NewOperation("add", path, value))
}

func (p *patch) fail(path string) {
	if p.err == nil {
		p.err = fmt.Errorf("%s of the pod is changed where no patch is made: report this", path)
	}
}

// strings adds the entries of a map that are new or changed.
func (p *patch) strings(path string, before, after map[string]string) {
	if len(before) == 0 && len(after) > 0 {
		p.add(path, after)
		return
	}
	for _, key := range slices.Sorted(maps.Keys(after)) {
		if was, ok := before[key]; !ok || was != after[key] {
			p.add(path+"/"+strings.NewReplacer("~", "~0", "/", "~1").Replace(key), after[key])
		}
	}
	for key := range before {
		if _, ok := after[key]; !ok {
			p.fail(path)
		}
	}
}

// containers compares existing containers one by one, and appends new ones.
func (p *patch) containers(path string, before, after []corev1.Container) {
	for i := range min(len(before), len(after)) {
		p.container(path+"/"+strconv.Itoa(i), &before[i], &after[i])
	}
	longer(p, path, len(before), after)
}

// container compares variables separately: they are most of a large container, and Pod only appends to them. Besides,
// Pod changes names of ports where they are declared and where they are used.
func (p *patch) container(path string, before, after *corev1.Container) {
	appended(p, path+"/env", before.Env, after.Env)
	was, is := portsOf(before), portsOf(after)
	if !reflect.DeepEqual(portless(before), portless(after)) {
		p.fail(path)
		return
	}
	if reflect.DeepEqual(was, is) {
		return
	}
	ops, err := compare(was, is)
	if err != nil && p.err == nil {
		p.err = fmt.Errorf("compare container %s: %w", before.Name, err)
	}
	for _, op := range ops {
		p.ops = append(p.ops, jsonpatch.NewOperation(op.Operation, path+op.Path, op.Value))
	}
}

// portsOf returns the parts of a container that name ports.
func portsOf(c *corev1.Container) *corev1.Container {
	return &corev1.Container{
		Ports: c.Ports, Lifecycle: c.Lifecycle,
		LivenessProbe: c.LivenessProbe, ReadinessProbe: c.ReadinessProbe, StartupProbe: c.StartupProbe,
	}
}

// portless returns a container without variables and without the parts that portsOf returns.
func portless(c *corev1.Container) *corev1.Container {
	r := *c
	r.Env, r.Ports, r.Lifecycle, r.LivenessProbe, r.ReadinessProbe, r.StartupProbe = nil, nil, nil, nil, nil, nil
	return &r
}

func compare(before, after *corev1.Container) ([]jsonpatch.Operation, error) {
	a, err := json.Marshal(before)
	if err != nil {
		return nil, err
	}
	b, err := json.Marshal(after)
	if err != nil {
		return nil, err
	}
	ops, err := jsonpatch.CreatePatch(a, b)
	sort.Stable(jsonpatch.ByPath(ops)) // the order of maps is random, and the same pod must have the same patch
	return ops, err
}

// appended adds the items of a list after those that it had.
func appended[T any](p *patch, path string, before, after []T) {
	for i := range min(len(before), len(after)) {
		if !reflect.DeepEqual(before[i], after[i]) {
			p.fail(path)
			return
		}
	}
	longer(p, path, len(before), after)
}

// longer adds the items after the first had. The object may lack a list that had none.
func longer[T any](p *patch, path string, had int, after []T) {
	switch {
	case len(after) < had:
		p.fail(path)
	case had == 0 && len(after) > 0:
		p.add(path, after)
	default:
		for _, item := range after[had:] {
			p.add(path+"/-", item)
		}
	}
}
