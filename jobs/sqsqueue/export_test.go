package sqsqueue

// What tests look at.
var (
	ValidParent = validParent
	FromXRay    = fromXRay
	ToXRay      = toXRay
)
