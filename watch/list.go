package watch

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"

	"google.golang.org/protobuf/encoding/protowire"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
)

// pageInfo describes a page of a list that was read.
type pageInfo struct {
	version       uint64 // of the list
	continueToken string // of the next page; empty after the last
}

// events returns a request for the Events of the source.
func (w *Watcher) events() *rest.Request {
	return w.client.Get().NamespaceIfScoped(w.namespace, w.namespace != "").Resource("events")
}

// listPage returns a request for a page of a list. Without a resourceVersion, the API server reads
// the newest state from etcd. (With "0" it may answer from a cache and ignore the limit.)
func (w *Watcher) listPage(token string, limit int) *rest.Request {
	req := w.events().Param("limit", strconv.Itoa(limit))
	if token != "" {
		req.Param("continue", token)
	}
	return req
}

// listAsOf makes req list the Events as of a version.
func listAsOf(req *rest.Request, version uint64) *rest.Request {
	return req.Param("resourceVersion", strconv.FormatUint(version, 10)).
		Param("resourceVersionMatch", string(metav1.ResourceVersionMatchExact))
}

// continueToken returns the token with which an expired list can be continued.
func continueToken(err error) string {
	var s apierrors.APIStatus
	if !errors.As(err, &s) {
		return ""
	}
	return s.Status().Continue
}

// readPage reads one page of a list, with visit as in readList.
func (w *Watcher) readPage(ctx context.Context, req *rest.Request, visit func(item []byte) error) (pageInfo, error) {
	in, err := open(ctx, req, listHeaderTimeout, bodyReadTimeout)
	if err != nil {
		return pageInfo{}, err
	}
	defer in.Close()
	m, err := readList(in, visit)
	if err != nil {
		return pageInfo{}, err
	}
	version, err := strconv.ParseUint(m.ResourceVersion, 10, 64)
	if err != nil || version == 0 {
		return pageInfo{}, fmt.Errorf("read event list: resourceVersion %q is not a version", m.ResourceVersion)
	}
	return pageInfo{version: version, continueToken: m.Continue}, nil
}

// listKind is the kind of a list of Events.
const listKind = "EventList"

// readList reads an EventList and passes its items to visit, each in protobuf and valid until
// visit returns. An error of visit ends the reading and is returned unchanged.
func readList(r io.Reader, visit func(item []byte) error) (meta metav1.ListMeta, err error) {
	in := bufio.NewReaderSize(r, 64<<10)
	prefix := make([]byte, len(protobufPrefix))
	if _, err := io.ReadFull(in, prefix); err != nil {
		return meta, fmt.Errorf("read event list: %w", unexpectedEOF(err))
	}
	if string(prefix) != protobufPrefix {
		return meta, fmt.Errorf("read event list: response is not protobuf: it begins with %q", prefix)
	}

	buf := make([]byte, 0, 16<<10)
	envelope := message{in: in, left: math.MaxInt64, toEOF: true}
	found := false
	for {
		num, size, err := envelope.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return meta, fmt.Errorf("read event list: %w", err)
		}
		if num != unknownRaw {
			if buf, err = envelope.read(buf, size); err == nil && num == unknownTypeMeta {
				err = checkKind(buf)
			}
			if err != nil {
				return meta, fmt.Errorf("read event list: %w", err)
			}
			continue
		}
		if found {
			return meta, errors.New("read event list: two objects in one response")
		}
		found = true
		list := message{in: in, left: int64(size)}
		for {
			num, size, err := list.next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err == nil && (num == listMetadata || num == listItems) {
				buf, err = list.read(buf, size)
			} else if err == nil {
				err = list.skip(size)
			}
			if err != nil {
				return meta, fmt.Errorf("read event list: %w", err)
			}
			switch num {
			case listMetadata:
				if err := meta.Unmarshal(buf); err != nil {
					return meta, fmt.Errorf("read event list: metadata: %w", err)
				}
			case listItems:
				if err := visit(buf); err != nil {
					return meta, err
				}
			}
		}
	}
	if !found {
		return meta, errors.New("read event list: no object in the response")
	}
	return meta, nil
}

// checkKind returns an error unless typeMeta is that of a list of Events.
func checkKind(typeMeta []byte) error {
	kind := ""
	err := eachField(typeMeta, func(num protowire.Number, value []byte) error {
		if num == typeMetaKind {
			kind = string(value)
		}
		return nil
	})
	if err == nil && kind != listKind {
		err = fmt.Errorf("want kind %s, got %q", listKind, kind)
	}
	return err
}
