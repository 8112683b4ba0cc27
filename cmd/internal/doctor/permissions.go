package doctor

import (
	"cmp"
	"encoding/json"
	"errors"
	"regexp"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/aws/smithy-go"

	"upwell/jobs/sdkerr"
)

// A permission is what a policy allows: an action on a resource, named by its ARN.
type permission struct{ action, resource string }

// What a refusal on account of a key of KMS's names: the actions and the key.
var (
	kmsAction = regexp.MustCompile(`\bkms:[A-Z]\w+`)
	kmsKey    = regexp.MustCompile(`\barn:[\w-]+:kms:[\w:/-]+`)
)

// weigh notes what the answer to a request says about the permission that it takes,
// and reports whether it may be had: false is a refusal. Any other complaint of the
// service about the request says that it was looked at, so that it was allowed.
func (x *exam) weigh(action, resource string, err error) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	switch {
	case err == nil:
		x.probed++
	case denied(err):
		for _, p := range refusedBy(err, permission{action, resource}) {
			if !slices.Contains(x.refused, p) {
				x.refused = append(x.refused, p)
			}
		}
		return false
	case errors.Is(err, errTaken):
		x.doubts = append(x.doubts, action+": "+err.Error())
	case badCredentials(err), absent(err), sdkerr.BareCode(err) == "", status(err) >= 500, status(err) == 404:
		// Says nothing, or nothing but what the checks of queue and bucket say.
	default:
		x.probed++
	}
	return true
}

// refusedBy returns what is missing: what was asked for, or the key behind it.
func refusedBy(err error, asked permission) []permission {
	api, ok := errors.AsType[smithy.APIError](err)
	if !ok {
		return []permission{asked}
	}
	actions := kmsAction.FindAllString(api.ErrorMessage(), -1)
	if len(actions) == 0 && strings.HasPrefix(strings.ToLower(api.ErrorCode()), "kms") {
		actions = []string{"kms:Decrypt", "kms:GenerateDataKey"}
	}
	if len(actions) == 0 {
		return []permission{asked}
	}
	key := cmp.Or(kmsKey.FindString(api.ErrorMessage()), "arn:aws:kms:*:*:key/KEY") // whose name the operator knows
	var list []permission
	for _, a := range actions {
		list = append(list, permission{a, key})
	}
	return list
}

// entry makes an error of what a batch of one says of its entry. That an entry is bad
// is what was to be heard.
func entry(failed []types.BatchResultErrorEntry) error {
	for _, f := range failed {
		err := &smithy.GenericAPIError{Code: aws.ToString(f.Code), Message: aws.ToString(f.Message)}
		if denied(err) || badCredentials(err) || !f.SenderFault {
			return err
		}
	}
	return nil
}

// permissions says which of the actions that were tried are not allowed.
func (x *exam) permissions() {
	for i := range x.refused {
		if x.account != "" { // which was not known yet, perhaps, when the queue was looked for
			x.refused[i].resource = strings.Replace(x.refused[i].resource, ":*:", ":"+x.account+":", 1)
		}
	}
	switch {
	case len(x.refused) > 0:
		var list []string
		for _, p := range x.refused {
			list = append(list, p.action+" on "+p.resource[strings.LastIndexByte(p.resource, ':')+1:])
		}
		slices.Sort(list)
		x.note(checkPermissions, Failure, "refused: "+strings.Join(list, ", "), "allow it, unless a policy denies it outright:\n"+policy(x.refused))
	case len(x.doubts) > 0:
		slices.Sort(x.doubts)
		x.note(checkPermissions, Warning, strings.Join(x.doubts, "; "), "look at the queue: upwell status, upwell dead list")
	case x.probed == 0:
		x.skip("neither queue nor bucket was reached", checkPermissions)
	default:
		x.ok(checkPermissions, "%d tried on queue and bucket, none refused", x.probed)
	}
}

// policy returns an IAM policy that allows what is listed, one line for each
// resource.
func policy(list []permission) string {
	type statement struct {
		Effect   string
		Action   []string
		Resource string
	}
	byResource := make(map[string]*statement)
	var statements []*statement
	for _, p := range list {
		s, ok := byResource[p.resource]
		if !ok {
			s = &statement{Effect: "Allow", Resource: p.resource}
			byResource[p.resource] = s
			statements = append(statements, s)
		}
		s.Action = append(s.Action, p.action)
	}
	slices.SortFunc(statements, func(a, b *statement) int { return cmp.Compare(a.Resource, b.Resource) })
	var lines []string
	for _, s := range statements {
		slices.Sort(s.Action)
		text, err := json.Marshal(s)
		if err != nil {
			panic(err) // strings
		}
		lines = append(lines, " "+string(text))
	}
	return `{"Version":"2012-10-17","Statement":[` + "\n" + strings.Join(lines, ",\n") + "]}"
}
