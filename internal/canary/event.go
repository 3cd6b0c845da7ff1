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

const requestTimeout = 30 * time.Second

// eventState is the state of the Event as the last response returned it. It belongs to the
// goroutine that writes.
type eventState struct {
	exists       bool
	count        int32
	failingSince time.Time // zero: the last write succeeded
}

// write writes a new state of the Event.
func (c *Canary) write(ctx context.Context) {
	c.watch.begin()
	if c.loki != nil {
		c.loki.begin()
	}
	version, err := c.upsert(ctx)
	if err != nil {
		c.logFailure(ctx, err)
		return
	}
	if !c.event.failingSince.IsZero() {
		c.log.Info("canary Event written again", "after", time.Since(c.event.failingSince).Round(time.Second))
		c.event.failingSince = time.Time{}
	}
	if c.loki != nil {
		c.loki.written(version)
	}
	c.watch.written(version)
}

func (c *Canary) logFailure(ctx context.Context, err error) {
	if ctx.Err() != nil {
		return
	}
	level := slog.LevelDebug
	if c.event.failingSince.IsZero() {
		level = slog.LevelWarn
		c.event.failingSince = time.Now()
	}
	args := []any{"err", err}
	if apierrors.IsForbidden(err) {
		args = append(args, "hint", fmt.Sprintf(`grant get, create and patch on events in namespace %s with a Role and a RoleBinding there: apiGroups [""], resources [events], verbs [get, create, patch]`, c.o.Namespace))
	}
	c.log.Log(ctx, level, "canary Event could not be written, retrying every minute", args...)
}

// upsert creates or patches the Event and returns its version. Like any other Event it expires, an
// hour after the last write by default.
func (c *Canary) upsert(ctx context.Context) (version string, err error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	events := func(r *rest.Request) *rest.Request {
		return r.Namespace(c.o.Namespace).Resource("events").SetHeader("Accept", "application/json")
	}
	if !c.event.exists {
		e, err := sendRequest(ctx, "get", events(c.o.Client.Get()).Name(Name), nil)
		switch {
		case err == nil:
			c.event.exists, c.event.count = true, e.Count
		case !apierrors.IsNotFound(err):
			return "", err
		}
	}
	if c.event.exists {
		e, err := sendRequest(ctx, "patch", events(c.o.Client.Patch(types.MergePatchType)).Name(Name), c.eventPatch(c.event.count+1))
		if !apierrors.IsNotFound(err) {
			return c.recordWrite(e, err)
		}
		c.event.exists = false // expired or deleted
	}
	e, err := sendRequest(ctx, "create", events(c.o.Client.Post()).SetHeader("Content-Type", "application/json"), c.newEvent())
	return c.recordWrite(e, err)
}

func (c *Canary) recordWrite(e *corev1.Event, err error) (version string, _ error) {
	if err != nil {
		return "", err
	}
	c.event.exists, c.event.count = true, e.Count
	return e.ResourceVersion, nil
}

// sendRequest sends a request, with body as JSON unless it is nil, and decodes the Event returned.
func sendRequest(ctx context.Context, verb string, r *rest.Request, body any) (*corev1.Event, error) {
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return nil, fmt.Errorf("%s event %s: %w", verb, Name, err)
		}
		r = r.Body(b)
	}
	// MaxRetries(0): the next write is a minute later.
	response, err := r.MaxRetries(0).Do(ctx).Raw()
	if err != nil {
		return nil, fmt.Errorf("%s event %s: %w", verb, Name, err)
	}
	e := &corev1.Event{}
	if err := json.Unmarshal(response, e); err != nil {
		return nil, fmt.Errorf("%s event %s: decode the response: %w", verb, Name, err)
	}
	return e, nil
}

// eventPatch includes the involved object, which is another pod after a failover.
func (c *Canary) eventPatch(count int32) any {
	return map[string]any{
		"involvedObject": c.involvedObject(),
		"count":          count,
		"lastTimestamp":  metav1.Now(),
	}
}

func (c *Canary) newEvent() any {
	now := metav1.Now()
	return &corev1.Event{
		TypeMeta:       metav1.TypeMeta{APIVersion: "v1", Kind: "Event"},
		ObjectMeta:     metav1.ObjectMeta{Namespace: c.o.Namespace, Name: Name},
		InvolvedObject: c.involvedObject(),
		Reason:         Reason,
		Message:        "Written every minute to check that Events arrive",
		Source:         corev1.EventSource{Component: "hindsight"},
		FirstTimestamp: now,
		LastTimestamp:  now,
		Count:          1,
		Type:           corev1.EventTypeNormal,
	}
}

// involvedObject must be in the namespace of the Event: the API server checks that, also for a
// Namespace.
func (c *Canary) involvedObject() corev1.ObjectReference {
	if c.o.Pod != "" {
		return corev1.ObjectReference{APIVersion: "v1", Kind: "Pod", Namespace: c.o.Namespace, Name: c.o.Pod}
	}
	return corev1.ObjectReference{APIVersion: "v1", Kind: "Namespace", Namespace: c.o.Namespace, Name: c.o.Namespace}
}
