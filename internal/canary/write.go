package canary

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
)

// answerWithin bounds each request.
const answerWithin = 30 * time.Second

// written is what is known of the writing. Only the goroutine that writes
// touches it.
type written struct {
	known  bool  // that it exists
	count  int32 // its last
	failed time.Time
}

// write makes a new state of the Event.
func (c *Canary) write(ctx context.Context) {
	c.watch.begin()
	if c.loki != nil {
		c.loki.begin()
	}
	version, err := c.put(ctx)
	if err != nil {
		c.failed(ctx, err)
		return
	}
	if !c.event.failed.IsZero() {
		c.log.Info("the canary can be written again", "after", time.Since(c.event.failed).Round(time.Second))
		c.event.failed = time.Time{}
	}
	if c.loki != nil {
		c.loki.wrote(version)
	}
	c.watch.wrote(version)
}

func (c *Canary) failed(ctx context.Context, err error) {
	if ctx.Err() != nil {
		return
	}
	level := slog.LevelDebug
	if c.event.failed.IsZero() {
		level = slog.LevelWarn
		c.event.failed = time.Now()
	}
	args := []any{"err", err}
	if apierrors.IsForbidden(err) {
		args = append(args, "mend", fmt.Sprintf(`grant get, create and patch on events in namespace %s with a Role and a RoleBinding there: apiGroups [""], resources [events], verbs [get, create, patch]`, c.o.Namespace))
	}
	c.log.Log(ctx, level, "the canary cannot be written, will be tried again every minute", args...)
}

// put writes the Event, whether or not it exists, and returns its version. It
// expires like any other, an hour after the last write.
func (c *Canary) put(ctx context.Context) (version string, err error) {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	events := func(r *rest.Request) *rest.Request {
		return r.Namespace(c.o.Namespace).Resource("events").SetHeader("Accept", "application/json")
	}
	if !c.event.known {
		e, err := do(ctx, "get", events(c.o.Client.Get()).Name(Name), nil)
		switch {
		case err == nil:
			c.event.known, c.event.count = true, e.Count
		case !apierrors.IsNotFound(err):
			return "", err
		}
	}
	if c.event.known {
		e, err := do(ctx, "patch", events(c.o.Client.Patch(types.MergePatchType)).Name(Name), c.patch(c.event.count+1))
		if !apierrors.IsNotFound(err) {
			return c.took(e, err)
		}
		c.event.known = false // it has expired, or was deleted
	}
	e, err := do(ctx, "create", events(c.o.Client.Post()).SetHeader("Content-Type", "application/json"), c.create())
	return c.took(e, err)
}

func (c *Canary) took(e *corev1.Event, err error) (version string, _ error) {
	if err != nil {
		return "", err
	}
	c.event.known, c.event.count = true, e.Count
	return e.ResourceVersion, nil
}

// do sends a request, with a body as JSON unless it is nil.
func do(ctx context.Context, verb string, r *rest.Request, body any) (*corev1.Event, error) {
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return nil, fmt.Errorf("%s event %s: %w", verb, Name, err)
		}
		r = r.Body(b)
	}
	// MaxRetries(0): the next minute is soon enough.
	answer, err := r.MaxRetries(0).Do(ctx).Raw()
	if err != nil {
		return nil, fmt.Errorf("%s event %s: %w", verb, Name, err)
	}
	e := &corev1.Event{}
	if err := json.Unmarshal(answer, e); err != nil {
		return nil, fmt.Errorf("%s event %s: decode the answer: %w", verb, Name, err)
	}
	return e, nil
}

// patch is what changes: also the object it is about, which after a failover is
// another pod.
func (c *Canary) patch(count int32) any {
	return map[string]any{
		"involvedObject": c.about(),
		"count":          count,
		"lastTimestamp":  metav1.Now(),
	}
}

func (c *Canary) create() any {
	now := metav1.Now()
	return &corev1.Event{
		TypeMeta:       metav1.TypeMeta{APIVersion: "v1", Kind: "Event"},
		ObjectMeta:     metav1.ObjectMeta{Namespace: c.o.Namespace, Name: Name},
		InvolvedObject: c.about(),
		Reason:         Reason,
		Message:        "Written every minute, to see that Events arrive",
		Source:         corev1.EventSource{Component: "hindsight"},
		FirstTimestamp: now,
		LastTimestamp:  now,
		Count:          1,
		Type:           corev1.EventTypeNormal,
	}
}

// about is the object that the Event is about. It has to be in the Event's own
// namespace, so that a Namespace also says that it is in itself.
func (c *Canary) about() corev1.ObjectReference {
	if c.o.Pod != "" {
		return corev1.ObjectReference{APIVersion: "v1", Kind: "Pod", Namespace: c.o.Namespace, Name: c.o.Pod}
	}
	return corev1.ObjectReference{APIVersion: "v1", Kind: "Namespace", Namespace: c.o.Namespace, Name: c.o.Namespace}
}
