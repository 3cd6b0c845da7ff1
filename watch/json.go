package watch

import (
	"encoding/json"
	"fmt"
	"io"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// readJSONList is readList for an answer in JSON: that of a proxy that does not
// speak protobuf, for every API server does.
func readJSONList(in io.Reader, visit func(item []byte, err error) error) (meta metav1.ListMeta, err error) {
	fail := func(err error) (metav1.ListMeta, error) {
		return meta, fmt.Errorf("read event list: %w", unexpectedEOF(err))
	}
	dec := json.NewDecoder(in)
	if err := expect(dec, '{'); err != nil {
		return fail(err)
	}
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return fail(err)
		}
		switch key {
		case "metadata":
			if err := dec.Decode(&meta); err != nil {
				return fail(err)
			}
		case "items":
			if err := readJSONItems(dec, visit); err != nil {
				return meta, err
			}
		case "kind":
			var kind string
			if err := dec.Decode(&kind); err != nil {
				return fail(err)
			}
			if kind != listKind {
				return fail(fmt.Errorf("want kind %s, got %q", listKind, kind))
			}
		default:
			var ignored json.RawMessage
			if err := dec.Decode(&ignored); err != nil {
				return fail(err)
			}
		}
	}
	if err := expect(dec, '}'); err != nil {
		return fail(err)
	}
	return meta, nil
}

func readJSONItems(dec *json.Decoder, visit func(item []byte, err error) error) error {
	fail := func(err error) error { return fmt.Errorf("read event list: items: %w", unexpectedEOF(err)) }
	switch start, err := dec.Token(); {
	case err != nil:
		return fail(err)
	case start == nil: // null
		return nil
	case start != json.Delim('['):
		return fail(fmt.Errorf("want a list, got %v", start))
	}
	for dec.More() {
		var raw json.RawMessage
		if err := dec.Decode(&raw); err != nil {
			return fail(err)
		}
		item, err := jsonToProtobuf(raw, &corev1.Event{})
		if err != nil {
			err = fmt.Errorf("decode event %s: %w", jsonName(raw), err)
		}
		if err := visit(item, err); err != nil {
			return err
		}
	}
	if err := expect(dec, ']'); err != nil {
		return fail(err)
	}
	return nil
}

// jsonName returns the namespace and name of an Event that cannot be decoded.
func jsonName(raw []byte) string {
	m := jsonMeta(raw)
	return m.Namespace + "/" + m.Name
}

// jsonMeta returns what tells one state of an Event from others, as far as it can be
// decoded.
func jsonMeta(raw []byte) metav1.ObjectMeta {
	var e struct {
		Metadata struct{ Namespace, Name, ResourceVersion string }
	}
	_ = json.Unmarshal(raw, &e)
	return metav1.ObjectMeta{Namespace: e.Metadata.Namespace, Name: e.Metadata.Name, ResourceVersion: e.Metadata.ResourceVersion}
}

func expect(dec *json.Decoder, want json.Delim) error {
	got, err := dec.Token()
	if err == nil && got != want {
		err = fmt.Errorf("want %v, got %v", want, got)
	}
	return err
}

// protobufObject is an API object that can be written as protobuf.
type protobufObject interface{ Marshal() ([]byte, error) }

// jsonToProtobuf brings an object of an answer in JSON into the one form in
// which objects are handled here.
func jsonToProtobuf(raw []byte, into protobufObject) ([]byte, error) {
	if err := json.Unmarshal(raw, into); err != nil {
		return nil, err
	}
	return into.Marshal()
}
