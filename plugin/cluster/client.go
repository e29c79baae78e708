// Package cluster is the part of the plugin that calls the API server, with only the caller's credentials.
package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/cli-runtime/pkg/resource"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	cmdutil "k8s.io/kubectl/pkg/cmd/util"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// webhookConfiguration is the name of the chart's MutatingWebhookConfiguration.
const webhookConfiguration = "kubectl-sandbox"

// A Client reads and writes one cluster.
type Client struct {
	// Namespace is the command's namespace: that of --namespace, or of the context.
	Namespace string
	Kube      kubernetes.Interface
	Dynamic   dynamic.Interface
	Mapper    meta.RESTMapper

	config  *rest.Config
	builder func() *resource.Builder
	// discovery uses kubectl's cache while that is fresh.
	discovery discovery.DiscoveryInterface
}

// New returns a Client for the cluster, namespace and user that the factory's flags choose. It makes no API call.
func New(f cmdutil.Factory) (*Client, error) {
	namespace, _, err := f.ToRawKubeConfigLoader().Namespace()
	if err != nil {
		return nil, noCluster(err)
	}
	config, err := f.ToRESTConfig()
	if err != nil {
		return nil, noCluster(err)
	}
	kube, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, noCluster(err)
	}
	dyn, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, noCluster(err)
	}
	mapper, err := f.ToRESTMapper()
	if err != nil {
		return nil, Explain(err)
	}
	cached, err := f.ToDiscoveryClient()
	if err != nil {
		return nil, Explain(err)
	}
	return &Client{Namespace: namespace, Kube: kube, Dynamic: dyn, Mapper: mapper, config: config, builder: f.NewBuilder, discovery: cached}, nil
}

// Workloads reads the workloads that args name, in the forms of kubectl ("deploy/api", "deployment api worker"), in
// the client's namespace. A workload that does not exist, or that is none (plan.CheckWorkload), is a *plan.Problem.
// templatePath is the path of pod templates in custom kinds; if empty, that of the object's annotation.
func (c *Client) Workloads(ctx context.Context, args []string, templatePath string) ([]*plan.Workload, error) {
	workloads, err := c.objects(ctx, args, templatePath)
	if err != nil {
		return nil, err
	}
	for _, w := range workloads {
		if err := plan.CheckWorkload(w); err != nil {
			return nil, err
		}
	}
	return workloads, nil
}

// objects is Workloads without the check.
func (c *Client) objects(ctx context.Context, args []string, templatePath string) ([]*plan.Workload, error) {
	type answer struct {
		infos []*resource.Info
		err   error
	}
	// The builder takes no context. Its calls only read, so after cancellation they may end by themselves.
	done := make(chan answer, 1)
	go func() {
		infos, err := c.builder().Unstructured().NamespaceParam(c.Namespace).DefaultNamespace().
			ResourceTypeOrNameArgs(false, args...).Flatten().Latest().Do().Infos()
		done <- answer{infos, err}
	}()
	var a answer
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case a = <-done:
	}
	if a.err != nil {
		return nil, c.explainWorkload(a.err)
	}
	workloads := make([]*plan.Workload, len(a.infos))
	for i, info := range a.infos {
		u, err := asUnstructured(info)
		if err != nil {
			return nil, err
		}
		workloads[i] = plan.NewWorkload(u, info.Mapping.Resource.GroupResource(), templatePath)
	}
	return workloads, nil
}

// Apply writes obj by server-side apply as sandbox.FieldManager. Without force, a field that another manager owns
// with another value is a conflict (apierrors.IsConflict), and nothing changes. With dryRun the API server does
// everything but store it.
func (c *Client) Apply(ctx context.Context, resource schema.GroupVersionResource, obj *unstructured.Unstructured, force, dryRun bool) (*unstructured.Unstructured, error) {
	options := metav1.ApplyOptions{FieldManager: sandbox.FieldManager, Force: force}
	if dryRun {
		options.DryRun = []string{metav1.DryRunAll}
	}
	objects := c.Dynamic.Resource(resource).Namespace(obj.GetNamespace())
	applied, err := objects.Apply(ctx, obj.GetName(), obj, options)
	if formersOwn(err) {
		options.Force = true
		return objects.Apply(ctx, obj.GetName(), obj, options)
	}
	return applied, err
}

// formersOwn reports whether an earlier version of this program owns all fields that an apply conflicts with.
func formersOwn(err error) bool {
	var status apierrors.APIStatus
	if !apierrors.IsConflict(err) || !errors.As(err, &status) || status.Status().Details == nil {
		return false
	}
	causes := status.Status().Details.Causes
	return len(causes) > 0 && !slices.ContainsFunc(causes, func(c metav1.StatusCause) bool {
		return c.Type != metav1.CauseTypeFieldManagerConflict || !strings.Contains(c.Message, strconv.Quote(sandbox.FormerFieldManager))
	})
}

func asUnstructured(info *resource.Info) (*unstructured.Unstructured, error) {
	u, ok := info.Object.(*unstructured.Unstructured)
	if !ok {
		return nil, fmt.Errorf("%s: the API server answered with a %T", info.ObjectName(), info.Object)
	}
	return u, nil
}

// explainWorkload explains why a workload could not be read.
func (c *Client) explainWorkload(err error) error {
	var status apierrors.APIStatus
	if !apierrors.IsNotFound(err) || !errors.As(err, &status) || status.Status().Details == nil {
		return Explain(err)
	}
	d := status.Status().Details
	kind := d.Kind
	if d.Group != "" {
		kind += "." + d.Group
	}
	return &plan.Problem{
		What: fmt.Sprintf("%s %q not found in namespace %q", kind, d.Name, c.Namespace),
		Hint: "list what exists", Fix: plan.Kubectl("get", kind), Err: err,
	}
}

// inParallel runs all calls concurrently to their end, and returns the first error in the order of the calls. So the
// message does not depend on timing.
func inParallel(calls ...func() error) error {
	errs := make([]error, len(calls))
	var wg sync.WaitGroup
	for i, call := range calls {
		wg.Go(func() { errs[i] = call() })
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
