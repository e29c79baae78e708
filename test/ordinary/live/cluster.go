// Package live performs sequences of ordinary work on a real cluster, and observes what becomes of them. Each sequence has two
// applications in two namespaces, to which the same is done at the same time: one with the product, and its twin without.
package live

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/kubectl-sandbox/kubectl-sandbox/test/appliers"
	"github.com/kubectl-sandbox/kubectl-sandbox/test/apps"
	"github.com/kubectl-sandbox/kubectl-sandbox/test/ordinary"
)

const (
	// label marks namespaces of this package.
	label = "example.test/ordinary"
	// away is where a webhook's Deployment remembers its replicas while it is scaled to none.
	away = "example.test/ordinary-replicas"

	release = "kubectl-sandbox"
	webhook = "sandbox-webhook"
)

// A Cluster is where sequences are performed. It has the product installed, and runs on this machine.
type Cluster struct {
	kubeconfig string
	programs   string // folder of kubectl and kubectl-sandbox
	tools      *appliers.Tools
	client     kubernetes.Interface
	folder     string // for files
	// steady is held for reading by who performs a step, and for writing by who takes the webhook away from all.
	steady sync.RWMutex
}

// New returns the cluster of a kubeconfig.
func New(kubeconfig, programs, folder string, tools *appliers.Tools) (*Cluster, error) {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, err
	}
	config.QPS = -1 // no limit
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	return &Cluster{kubeconfig: kubeconfig, programs: programs, tools: tools, client: client, folder: folder}, nil
}

// Clean removes what runs that were broken off have left, and brings a webhook back that they took away.
func (c *Cluster) Clean(ctx context.Context) error {
	d, err := c.client.AppsV1().Deployments(release).Get(ctx, webhook, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("deployment %s in %s: %w (make install installs the chart)", webhook, release, err)
	}
	if n := d.Annotations[away]; n != "" {
		if err := c.scaleWebhook(ctx, n); err != nil {
			return err
		}
	}
	left, err := c.client.CoreV1().Namespaces().List(ctx, metav1.ListOptions{LabelSelector: label})
	if err != nil {
		return err
	}
	for _, ns := range left.Items {
		err = errors.Join(err, c.deleteNamespace(ctx, ns.Name))
	}
	return err
}

// takeWebhookAway scales the webhook to none and returns what brings it back.
func (c *Cluster) takeWebhookAway(ctx context.Context) (back func(context.Context) error, err error) {
	d, err := c.client.AppsV1().Deployments(release).Get(ctx, webhook, metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	replicas := strconv.Itoa(int(*d.Spec.Replicas))
	if _, err := c.run(ctx, "kubectl", "-n", release, "annotate", "deployment/"+webhook, away+"="+replicas); err != nil {
		return nil, err
	}
	back = func(ctx context.Context) error { return c.scaleWebhook(ctx, replicas) }
	if _, err := c.run(ctx, "kubectl", "-n", release, "scale", "deployment/"+webhook, "--replicas=0"); err != nil {
		return back, err
	}
	selector := metav1.FormatLabelSelector(d.Spec.Selector)
	return back, c.until(ctx, time.Minute, "the webhook's pods are gone", func(ctx context.Context) (bool, error) {
		pods, err := c.client.CoreV1().Pods(release).List(ctx, metav1.ListOptions{LabelSelector: selector})
		return err == nil && len(pods.Items) == 0, err
	})
}

func (c *Cluster) scaleWebhook(ctx context.Context, replicas string) error {
	for _, args := range [][]string{
		{"scale", "deployment/" + webhook, "--replicas=" + replicas},
		{"rollout", "status", "deployment/" + webhook, "--timeout=90s"},
		{"annotate", "deployment/" + webhook, away + "-"},
	} {
		if _, err := c.run(ctx, "kubectl", append([]string{"-n", release}, args...)...); err != nil {
			return err
		}
	}
	return nil
}

func (c *Cluster) createNamespace(ctx context.Context, twin bool) (string, error) {
	name := "ordinary-"
	if twin {
		name += "twin-"
	}
	ns, err := c.client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{
		ObjectMeta: metav1.ObjectMeta{GenerateName: name, Labels: map[string]string{label: "true"}},
	}, metav1.CreateOptions{})
	if err != nil {
		return "", err
	}
	return ns.Name, nil
}

func (c *Cluster) deleteNamespace(ctx context.Context, name string) error {
	err := c.client.CoreV1().Namespaces().Delete(ctx, name, metav1.DeleteOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// until waits until a condition holds, and returns its last error if it never does.
func (c *Cluster) until(ctx context.Context, within time.Duration, what string, holds func(context.Context) (bool, error)) error {
	var last error
	err := wait.PollUntilContextTimeout(ctx, 200*time.Millisecond, within, true, func(ctx context.Context) (bool, error) {
		var ok bool
		ok, last = holds(ctx)
		return ok && last == nil, nil
	})
	if err != nil {
		return fmt.Errorf("%s: not within %s: %w", what, within, errors.Join(last, err))
	}
	return nil
}

// run runs a program of the cluster's folder, and returns what it printed on standard output.
func (c *Cluster) run(ctx context.Context, program string, args ...string) (string, error) {
	return c.runWith(ctx, nil, filepath.Join(c.programs, program), args...)
}

func (c *Cluster) runWith(ctx context.Context, env []string, path string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = append(append(os.Environ(), "KUBECONFIG="+c.kubeconfig, "PATH="+c.programs+":"+os.Getenv("PATH"), "NO_COLOR=1"), env...)
	cmd.WaitDelay = 5 * time.Second
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s %s: %w: %s", filepath.Base(path), strings.Join(args, " "), err, strings.TrimSpace(errOut.String()))
	}
	return out.String(), nil
}

// Images are the programs that sequences run.
func Images() []apps.Image {
	refs := []string{apps.Podcli}
	for r := range ordinary.Images + 3 {
		refs = append(refs, apps.Podinfo(r))
	}
	return apps.Only(refs...)
}
