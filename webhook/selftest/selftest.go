// Package selftest tests an installation from outside. It creates a small baseline and a fork of it, sends requests
// with and without a key, removes the baseline's port name, and reports in one sentence what does not work. It needs
// rights in one namespace only.
package selftest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"
)

// Options are where the test runs, and with which image.
type Options struct {
	Namespace  string
	Image      string // of this program, which serves as the application
	PullPolicy string
	// PullSecrets are names of Secrets in Namespace.
	PullSecrets []string
	KeyHeader   string
	KeyMember   string
	// StepTimeout bounds each step. Zero: a default for each step, at most 2m30s.
	StepTimeout time.Duration
}

// Bounds of the steps; the test's own deadline bounds all of them.
const (
	admissionTime = time.Minute
	startTime     = 90 * time.Second
	routeTime     = time.Minute
	guardTime     = time.Minute
	cleanTime     = 20 * time.Second
	pause         = 500 * time.Millisecond
)

// A test is one run.
type test struct {
	Options
	client kubernetes.Interface
	report io.Writer
	name   string // of everything that it creates
}

// Run runs the test and writes a line to report for each thing that works. Its error is a sentence about what does not.
// It always deletes what it created.
func Run(ctx context.Context, config *rest.Config, o Options, report io.Writer) (err error) {
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	t := &test{Options: o, client: client, report: report, name: "selftest-" + rand.String(5)}
	defer func() {
		// The test may have ended because of its deadline.
		clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanTime)
		defer cancel()
		err = errors.Join(err, t.clean(clean))
	}()
	for _, step := range []struct {
		within time.Duration
		run    func(context.Context) error
	}{{admissionTime, t.admission}, {startTime, t.baseline}, {startTime + routeTime, t.fork}, {routeTime, t.requests}, {startTime + guardTime, t.guard}} {
		bounded, cancel := context.WithTimeout(ctx, cmp.Or(o.StepTimeout, step.within))
		err := step.run(bounded)
		cancel()
		if err != nil {
			return err
		}
	}
	return nil
}

func (t *test) say(format string, args ...any) { fmt.Fprintf(t.report, format+"\n", args...) }

// baseline creates a routed workload and its Service, and waits until its router responds.
func (t *test) baseline(ctx context.Context) error {
	if err := t.create(ctx, t.service(), t.deployment(answerBaseline, true)); err != nil {
		return err
	}
	err := until(ctx, func(ctx context.Context) error {
		pods, err := t.pods(ctx, t.selector())
		if err != nil {
			return err
		}
		for i := range pods {
			if err := admittedAs(roleOf(&pods[i]), &pods[i]); err != nil {
				return fmt.Errorf("pod %s: %w", pods[i].Name, err)
			}
			if why := notReady(&pods[i]); why != "" {
				return fmt.Errorf("pod %s is not ready: %s", pods[i].Name, why)
			}
		}
		return t.answers(ctx, "", answerBaseline)
	})
	if err != nil {
		return fmt.Errorf("the routed baseline does not serve: %w", err)
	}
	t.say("the routed baseline serves")
	return nil
}

// fork creates a sandbox with a fork of the baseline, and waits until the routers have its route.
func (t *test) fork(ctx context.Context) error {
	fork, err := t.makeFork(ctx)
	if err != nil {
		return err
	}
	err = until(ctx, func(ctx context.Context) error {
		pods, err := t.pods(ctx, metav1.FormatLabelSelector(fork.Spec.Selector))
		if err != nil {
			return err
		}
		if len(pods) == 0 {
			return errors.New("it has no pod")
		}
		if why := notReady(&pods[0]); why != "" {
			return fmt.Errorf("pod %s is not ready: %s", pods[0].Name, why)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("the fork is not routed: %w", err)
	}
	t.say("the fork is routed")
	return nil
}

// requests sends a request with each carrier of a key, and one without, and checks who responds.
func (t *test) requests(ctx context.Context) error {
	for _, carrier := range []string{t.KeyHeader, "baggage"} {
		if err := until(ctx, func(ctx context.Context) error { return t.answers(ctx, carrier, answerFork) }); err != nil {
			return fmt.Errorf("a request with the key in header %s does not reach the fork, although its pod is ready: routes are not served: %w", carrier, err)
		}
	}
	if err := until(ctx, func(ctx context.Context) error { return t.answers(ctx, "", answerBaseline) }); err != nil {
		return fmt.Errorf("a request without a key does not reach the baseline: %w", err)
	}
	t.say("requests with the key reach the fork, and the others the baseline")
	return nil
}

// guard replaces the baseline by a workload without routers, as a deploy from a manifest does after a deletion. Its
// Service must still reach it.
func (t *test) guard(ctx context.Context) error {
	deployments := t.client.AppsV1().Deployments(t.Namespace)
	if err := deployments.Delete(ctx, t.name, metav1.DeleteOptions{PropagationPolicy: ptr.To(metav1.DeletePropagationBackground)}); err != nil {
		return fmt.Errorf("delete the baseline: %w", err)
	}
	if err := t.create(ctx, t.deployment(answerReplaced, false)); err != nil {
		return err
	}
	if err := until(ctx, func(ctx context.Context) error { return t.answers(ctx, "", answerReplaced) }); err != nil {
		return fmt.Errorf("the Service does not reach a workload whose pods lack the port's name: "+
			"the Service guard of the webhook did not put the port's number back: %w", err)
	}
	t.say("a Service whose pods lost the port's name reaches them again")
	return nil
}

// until retries until there is no error. When ctx ends it returns the last error.
func until(ctx context.Context, try func(context.Context) error) error {
	var last error
	err := wait.PollUntilContextCancel(ctx, pause, true, func(ctx context.Context) (bool, error) {
		err := try(ctx)
		if err != nil && (ctx.Err() == nil || last == nil) {
			last = err
		}
		return err == nil, nil
	})
	if err != nil && last != nil {
		return last
	}
	return err
}

// notReady returns why a pod takes no requests; empty if it does.
func notReady(pod *corev1.Pod) string {
	why := "its conditions are not known yet"
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue {
			return ""
		}
	}
	for _, c := range pod.Status.Conditions {
		if c.Status == corev1.ConditionFalse && c.Message != "" {
			why = fmt.Sprintf("%s: %s", c.Type, c.Message)
		}
	}
	for _, s := range append(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses...) {
		if w := s.State.Waiting; w != nil && w.Message != "" {
			return fmt.Sprintf("container %s: %s: %s", s.Name, w.Reason, w.Message)
		}
	}
	return why
}

// Serve is the application: it responds to every request with a word, until ctx ends.
func Serve(ctx context.Context, address, answer string) error {
	server := &http.Server{Addr: address, ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, answer)
	})}
	context.AfterFunc(ctx, func() { _ = server.Close() })
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve on %s: %w", address, err)
	}
	return nil
}
