package server

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	"golang.org/x/sync/errgroup"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/controller-runtime/pkg/webhook"
	ctrladmission "sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/admission"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/certs"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/inject"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/telemetry"
)

// Run serves until ctx ends and all requests in flight are answered, or until it fails.
func Run(ctx context.Context, config *rest.Config, o Options, logger logr.Logger) error {
	config = rest.CopyConfig(config)
	config.QPS = -1 // the API server's priority and fairness does this better
	config.UserAgent = "sandbox-webhook/" + o.Version

	var draining atomic.Bool
	front, control, err := assemble(ctx, config, o, &draining, logger)
	if err != nil {
		return err
	}
	// ctx may end before endpoints and kube-proxy know: serve requests that still arrive. The same applies if control
	// fails: admission still works.
	ctx, leave := context.WithCancelCause(ctx)
	defer leave(nil)
	serving, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var g errgroup.Group
	g.Go(func() error {
		defer stop()
		return front.Start(serving)
	})
	g.Go(func() error {
		err := control.run(serving)
		leave(err)
		return err
	})
	g.Go(func() error {
		select {
		case <-serving.Done():
		case <-ctx.Done():
			draining.Store(true)
			logger.Info("stopping", "in", o.ShutdownDelay.String(), "why", context.Cause(ctx).Error())
			select {
			case <-serving.Done():
			case <-time.After(o.ShutdownDelay):
			}
			stop()
		}
		return nil
	})
	done := make(chan error, 1)
	go func() { done <- g.Wait() }()
	select {
	case err := <-done:
		return err
	case <-serving.Done():
	}
	select {
	case err := <-done:
		return err
	case <-time.After(shutdownBound):
		// As of controller-runtime 0.25, a manager that could not fill its caches does not stop: it keeps waiting for them.
		return fmt.Errorf("not stopped within %s", shutdownBound)
	}
}

// shutdownBound is longer than any request, and than the end of any stream.
const shutdownBound = 15 * time.Second

// certificateObjects are the objects that hold certificates, and those that use them.
func certificateObjects(o Options) map[client.Object]cache.ByObject {
	objects := map[client.Object]cache.ByObject{
		&admissionv1.MutatingWebhookConfiguration{}: {Field: fields.OneTermEqualSelector("metadata.name", o.Configuration)},
	}
	if o.Certificates == CertificatesSelf {
		objects[&corev1.Secret{}] = cache.ByObject{
			Namespaces: map[string]cache.Config{o.Namespace: {}},
			Field:      fields.OneTermEqualSelector("metadata.name", o.CASecret),
		}
	}
	return objects
}

// assemble creates the manager of admission, with certificates, health and metrics; and control.
func assemble(ctx context.Context, config *rest.Config, o Options, draining *atomic.Bool, logger logr.Logger) (manager.Manager, *control, error) {
	watched := certificateObjects(o)
	byObject := maps.Clone(watched)
	byObject[&corev1.ConfigMap{}] = cache.ByObject{
		Label: labels.SelectorFromSet(labels.Set{sandbox.LabelRole: sandbox.RoleSandbox}), Transform: admission.StripSandbox,
	}
	// The certificate source is needed from the first handshake on, but its manager needs the server first.
	var keeper *certs.Manager
	secure := func(c *tls.Config) {
		c.MinVersion = tls.VersionTLS13
		c.GetCertificate = func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) { return keeper.GetCertificate(hello) }
	}
	hooks := &reviews{Server: webhook.NewServer(webhook.Options{Port: o.AdmissionPort}), address: ":" + strconv.Itoa(o.AdmissionPort), secure: secure,
		headers: headerTimeout, whole: reviewTimeout}
	mgr, err := manager.New(config, manager.Options{
		Logger:                 logger,
		MapperProvider:         o.resources,
		Cache:                  cache.Options{ByObject: byObject, ReaderFailOnMissingInformer: true},
		Metrics:                metricsserver.Options{BindAddress: o.MetricsAddress},
		HealthProbeBindAddress: o.HealthAddress,
		WebhookServer:          hooks,
	})
	if err != nil {
		return nil, nil, fmt.Errorf("set up admission: %w", err)
	}
	changed, err := events(ctx, mgr.GetCache(), watched)
	if err != nil {
		return nil, nil, err
	}
	if _, err := mgr.GetCache().GetInformer(ctx, &corev1.LimitRange{}); err != nil {
		return nil, nil, fmt.Errorf("watch limitranges: %w", err)
	}
	set, err := telemetry.New(metrics.Registry)
	if err != nil {
		return nil, nil, err
	}
	control := &control{config: config, options: o, bundle: func() []byte { return keeper.Bundle() }, metrics: set, log: logger}
	set.Report(control.state)
	keeper, err = certs.New(certs.Options{
		Source: o.source(mgr.GetClient()), Client: mgr.GetClient(), Configuration: o.Configuration, Service: o.service(),
		Trust: control.trust, Changed: changed, Clock: clock.RealClock{}, Log: logger.WithName("certs"), Metrics: metrics.Registry,
	})
	if err != nil {
		return nil, nil, err
	}
	injection := func(ctx context.Context, namespace string) inject.Config {
		c := o.injection(keeper.Bundle())
		c.Minimum, c.Maximum = admission.Bounds(ctx, mgr.GetCache(), namespace)
		return c
	}
	if err := handlers(ctx, mgr, control, injection, logger); err != nil {
		return nil, nil, err
	}
	drained := func(*http.Request) error {
		if draining.Load() {
			return errors.New("stopping")
		}
		return nil
	}
	stream := &stream{address: ":" + strconv.Itoa(o.RoutesPort), handler: control, secure: secure}
	return mgr, control, errors.Join(mgr.Add(keeper), mgr.Add(stream), mgr.AddHealthzCheck("ping", healthz.Ping),
		mgr.AddReadyzCheck("stopping", drained), mgr.AddReadyzCheck("certificates", keeper.Ready),
		mgr.AddReadyzCheck("listening", mgr.GetWebhookServer().StartedChecker()))
}

// reviewWait is how long a review waits to be read, and again to be decided on. Both are shorter than the smallest
// timeoutSeconds in the chart, 3.
const reviewWait = time.Second

// handlers registers the handlers of admission reviews on the webhook's server.
func handlers(ctx context.Context, mgr manager.Manager, c *control, injection func(context.Context, string) inject.Config, log logr.Logger) error {
	o := c.options
	pods, err := admission.NewPods(o.Namespace, injection, metrics.Registry, log.WithName("admission"))
	if err != nil {
		return err
	}
	updates, err := admission.NewUpdates(o.Namespace, c.named, clock.RealClock{}, metrics.Registry, log.WithName("updates"))
	if err != nil {
		return err
	}
	gate, err := admission.NewGate(cmp.Or(o.Memory, defaultMemory), reviewWait, metrics.Registry)
	if err != nil {
		return err
	}
	rights := admission.AnybodysRights
	if o.Guarded {
		rights = admission.ReviewedRights(mgr.GetClient())
	}
	sandboxes := admission.NewSandboxes(o.Namespace, mgr.GetCache(), mgr.GetAPIReader(), rights, o.MaxSandboxes, clock.RealClock{}, log.WithName("sandboxes"))
	if err := sandboxes.Watch(ctx, mgr.GetCache()); err != nil {
		return err
	}
	for path, handler := range map[string]ctrladmission.Handler{
		admission.PodsPath: pods, admission.UpdatesPath: updates, admission.SandboxesPath: sandboxes,
	} {
		mgr.GetWebhookServer().Register(path, oneRequestEach(gate.Bound(&webhook.Admission{Handler: handler})))
	}
	return nil
}

// oneRequestEach closes a connection after its response. The API server speaks HTTP/1.1 to webhooks (k8s.io/apiserver
// pkg/util/webhook, to spread requests over replicas). A kept-alive connection could only be closed at the risk of
// losing a request that is just arriving, as a POST is not sent twice. So no replica could ever stop without that risk.
// A handshake costs a millisecond.
func oneRequestEach(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Connection", "close")
		h.ServeHTTP(w, r)
	})
}

func (o *Options) source(c client.Client) certs.Source {
	if o.Certificates == CertificatesMounted {
		return certs.Mounted{Dir: o.CertificatesDir}
	}
	return &certs.Own{
		Client: c, Secret: types.NamespacedName{Namespace: o.Namespace, Name: o.CASecret},
		Validity: o.CAValidity, LeafValidity: o.LeafValidity,
	}
}

// events returns a channel that receives a value whenever one of the objects changed.
func events(ctx context.Context, c cache.Cache, objects map[client.Object]cache.ByObject) (<-chan struct{}, error) {
	changed := make(chan struct{}, 1)
	poke := func() {
		select {
		case changed <- struct{}{}:
		default:
		}
	}
	for object := range objects {
		informer, err := c.GetInformer(ctx, object)
		if err != nil {
			return nil, fmt.Errorf("watch %T: %w", object, err)
		}
		_, err = informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
			AddFunc: func(any) { poke() }, UpdateFunc: func(any, any) { poke() }, DeleteFunc: func(any) { poke() },
		})
		if err != nil {
			return nil, fmt.Errorf("watch %T: %w", object, err)
		}
	}
	return changed, nil
}
