"""Action, NotAction, Resource, NotResource, Effect, Version."""

from typing import Any

from policy_cases.case import (
    EXPLICIT,
    GUIDE,
    MATCH,
    NO,
    OLD,
    Case,
    Document,
    document,
    implicit,
    statement,
)

ACTION = f"{GUIDE}reference_policies_elements_action.html"
NOT_ACTION = f"{GUIDE}reference_policies_elements_notaction.html"
RESOURCE = f"{GUIDE}reference_policies_elements_resource.html"
NOT_RESOURCE = f"{GUIDE}reference_policies_elements_notresource.html"
EFFECT = f"{GUIDE}reference_policies_elements_effect.html"
INTERPLAY = f"{GUIDE}reference_policies_evaluation-logic_AccessPolicyLanguage_Interplay.html"
Row = tuple[str, dict[str, Any], str, str, bool]  # page, elements, action, resource, applies

GET, PUT, LIST = "s3:GetObject", "s3:PutObject", "s3:ListBucket"
KEY, BUCKET = "arn:aws:s3:::bucket/key", "arn:aws:s3:::bucket"
ROLE = "arn:aws:iam::111122223333:role/service-role/r"
ENDPOINT = "arn:aws:sagemaker:us-east-1:111122223333:endpoint/e"
TEST = "arn:aws:s3:::amzn-s3-demo-bucket/*/test/*"
DEMO = "arn:aws:s3:::amzn-s3-demo-bucket/"

ROWS: list[Row] = [
    (ACTION, {"Action": GET}, GET, KEY, MATCH),
    (ACTION, {"Action": GET}, PUT, KEY, NO),
    (ACTION, {"Action": "S3:getobject"}, GET, KEY, MATCH),
    (ACTION, {"Action": "IAM:listaccesskeys"}, "iam:ListAccessKeys", ROLE, MATCH),
    (ACTION, {"Action": [PUT, GET]}, GET, KEY, MATCH),
    (ACTION, {"Action": [PUT, LIST]}, GET, KEY, NO),
    (ACTION, {"Action": []}, GET, KEY, NO),
    (ACTION, {"Action": "s3:*"}, GET, KEY, MATCH),
    (ACTION, {"Action": "S3:*"}, GET, KEY, MATCH),
    (ACTION, {"Action": "s3:*"}, "s3-outposts:GetObject", KEY, NO),
    (ACTION, {"Action": "iam:*"}, GET, KEY, NO),
    (ACTION, {"Action": "*"}, GET, KEY, MATCH),
    (ACTION, {"Action": "*:*"}, GET, KEY, MATCH),
    (ACTION, {"Action": "s*:GetObject"}, GET, KEY, MATCH),
    (ACTION, {"Action": "s?:GetObject"}, GET, KEY, MATCH),
    (ACTION, {"Action": "s??:GetObject"}, GET, KEY, NO),
    (ACTION, {"Action": "*Object"}, GET, KEY, MATCH),
    (ACTION, {"Action": "s3*"}, GET, KEY, MATCH),
    (ACTION, {"Action": "s3"}, GET, KEY, NO),
    (ACTION, {"Action": "s3:Get*"}, GET, KEY, MATCH),
    (ACTION, {"Action": "s3:Get*"}, PUT, KEY, NO),
    (ACTION, {"Action": "s3:*Object"}, GET, KEY, MATCH),
    (ACTION, {"Action": "s3:*Object"}, "s3:GetObjectTagging", KEY, NO),
    (ACTION, {"Action": "s3:?etObject"}, GET, KEY, MATCH),
    (ACTION, {"Action": "s3:GetObject?"}, GET, KEY, NO),
    (ACTION, {"Action": "s3:G*t*j*t"}, GET, KEY, MATCH),
    (ACTION, {"Action": "iam:*AccessKey*"}, "iam:CreateAccessKey", ROLE, MATCH),
    (ACTION, {"Action": "iam:*AccessKey*"}, "iam:ListAccessKeys", ROLE, MATCH),
    (ACTION, {"Action": "iam:*AccessKey*"}, "iam:ListUsers", ROLE, NO),
    (ACTION, {"Action": "s3:${*}"}, GET, KEY, NO),
    (ACTION, {"Action": "${aws:action}"}, GET, KEY, NO),
    (NOT_ACTION, {"NotAction": GET}, GET, KEY, NO),
    (NOT_ACTION, {"NotAction": GET}, PUT, KEY, MATCH),
    (NOT_ACTION, {"NotAction": "s3:getobject"}, GET, KEY, NO),
    (NOT_ACTION, {"NotAction": "iam:*"}, GET, KEY, MATCH),
    (NOT_ACTION, {"NotAction": "s3:*"}, GET, KEY, NO),
    (NOT_ACTION, {"NotAction": "*"}, GET, KEY, NO),
    (NOT_ACTION, {"NotAction": ["iam:*", "s3:Get*"]}, GET, KEY, NO),
    (NOT_ACTION, {"NotAction": ["iam:*", "s3:Get*"]}, PUT, KEY, MATCH),
    (NOT_ACTION, {"NotAction": "s3:DeleteBucket", "Resource": BUCKET}, LIST, BUCKET, MATCH),
    (NOT_ACTION, {"NotAction": "s3:DeleteBucket", "Resource": BUCKET}, GET, KEY, NO),
    (RESOURCE, {"Resource": KEY}, GET, KEY, MATCH),
    (RESOURCE, {"Resource": KEY}, GET, f"{KEY}2", NO),
    (RESOURCE, {"Resource": f"{KEY}2"}, GET, KEY, NO),
    (RESOURCE, {"Resource": "arn:aws:s3:::Bucket/key"}, GET, KEY, NO),
    (RESOURCE, {"Resource": "arn:aws:iam::111122223333:user/Bob"}, "iam:GetUser",
     "arn:aws:iam::111122223333:user/bob", NO),
    (RESOURCE, {"Resource": BUCKET}, GET, KEY, NO),
    (RESOURCE, {"Resource": f"{BUCKET}/*"}, GET, KEY, MATCH),
    (RESOURCE, {"Resource": f"{BUCKET}/*"}, GET, f"{BUCKET}/a/b:c", MATCH),
    (RESOURCE, {"Resource": f"{BUCKET}/*"}, LIST, BUCKET, NO),
    (RESOURCE, {"Resource": f"{BUCKET}*"}, LIST, BUCKET, MATCH),
    (RESOURCE, {"Resource": f"{BUCKET}*"}, GET, "arn:aws:s3:::bucket-of-others/key", MATCH),
    (RESOURCE, {"Resource": [BUCKET, f"{BUCKET}/*"]}, LIST, BUCKET, MATCH),
    (RESOURCE, {"Resource": [BUCKET, f"{BUCKET}/*"]}, GET, KEY, MATCH),
    (RESOURCE, {"Resource": [KEY, "arn:aws:s3:::bucket/k*"]}, GET, KEY, MATCH),
    (RESOURCE, {"Resource": [BUCKET, f"{BUCKET}/*"]}, GET, "arn:aws:s3:::other/key", NO),
    (RESOURCE, {"Resource": []}, GET, KEY, NO),
    (RESOURCE, {"Resource": "*"}, GET, KEY, MATCH),
    (RESOURCE, {"Resource": "**"}, GET, KEY, MATCH),
    (RESOURCE, {"Resource": "*"}, "s3:ListAllMyBuckets", "*", MATCH),
    (RESOURCE, {"Resource": "arn:aws:s3:::*"}, "s3:ListAllMyBuckets", "*", NO),
    (RESOURCE, {"Resource": "arn:*"}, GET, KEY, MATCH),
    (RESOURCE, {"Resource": "?"}, "s3:ListAllMyBuckets", "*", MATCH),
    (RESOURCE, {"Resource": "arn:aws:s3:::*"}, GET, KEY, MATCH),
    (RESOURCE, {"Resource": "arn:aws:s3:::buck?t/key"}, GET, KEY, MATCH),
    (RESOURCE, {"Resource": "arn:aws:s3:::buck??t/key"}, GET, KEY, NO),
    (RESOURCE, {"Resource": "arn:aws:s3:::bucket/ke?"}, GET, KEY, MATCH),
    (RESOURCE, {"Resource": "arn:aws:s3:::bucket/ke?"}, GET, f"{KEY}s", NO),
    (RESOURCE, {"Resource": "arn:aws:s3:::b*t/k*y"}, GET, KEY, MATCH),
    (RESOURCE, {"Resource": "arn:aws:s3:::b*t/k*z"}, GET, KEY, NO),
    (RESOURCE, {"Resource": "arn:aws:s3:::?"}, GET, "arn:aws:s3:::a", MATCH),
    (RESOURCE, {"Resource": "arn:aws:s3:::b?c"}, GET, "arn:aws:s3:::b:c", MATCH),
    (RESOURCE, {"Resource": "arn:aws:s3:::a*c"}, GET, "arn:aws:s3:::a:b:c", MATCH),
    # The page's own example.
    (RESOURCE, {"Resource": TEST}, GET, f"{DEMO}1/test/object.jpg", MATCH),
    (RESOURCE, {"Resource": TEST}, GET, f"{DEMO}1/2/test/object.jpg", MATCH),
    (RESOURCE, {"Resource": TEST}, GET, f"{DEMO}1/2/test/3/object.jpg", MATCH),
    (RESOURCE, {"Resource": TEST}, GET, f"{DEMO}1/2/3/test/4/object.jpg", MATCH),
    (RESOURCE, {"Resource": TEST}, GET, f"{DEMO}1///test///object.jpg", MATCH),
    (RESOURCE, {"Resource": TEST}, GET, f"{DEMO}/test/object.jpg", MATCH),
    (RESOURCE, {"Resource": TEST}, GET, f"{DEMO}1/test/", MATCH),
    (RESOURCE, {"Resource": TEST}, GET, f"{DEMO}1-test/object.jpg", NO),
    (RESOURCE, {"Resource": TEST}, GET, f"{DEMO}test/object.jpg", NO),
    (RESOURCE, {"Resource": TEST}, GET, f"{DEMO}1/2/test.jpg", NO),
    # "If the * wildcard is the last character of a resource ARN segment, it can expand to match
    # beyond the colon boundaries."
    (RESOURCE, {"Resource": "arn:aws:sagemaker:*:endpoint/e"}, "sagemaker:X", ENDPOINT, MATCH),
    (RESOURCE, {"Resource": "arn:aws:sagemaker:*:*:endpoint/*"}, "sagemaker:X", ENDPOINT, MATCH),
    (RESOURCE, {"Resource": "arn:aws:sagemaker:us-*:endpoint/e"}, "sagemaker:X", ENDPOINT, MATCH),
    (RESOURCE, {"Resource": "arn:aws:sagemaker:us-*-1:111122223333:endpoint/e"}, "sagemaker:X",
     ENDPOINT, MATCH),
    (RESOURCE, {"Resource": "arn:aws:sagemaker:us-*3:endpoint/e"}, "sagemaker:X", ENDPOINT, NO),
    (RESOURCE, {"Resource": "arn:aws:sagemaker:u*3:endpoint/*"}, "sagemaker:X", ENDPOINT, NO),
    (RESOURCE, {"Resource": "arn:aws:sagemaker:*?:endpoint/e"}, "sagemaker:X", ENDPOINT, NO),
    (RESOURCE, {"Resource": "arn:aws:sagemaker:us-east-1?111122223333:*"}, "sagemaker:X",
     ENDPOINT, NO),
    (RESOURCE, {"Resource": "arn:aws:sagemaker:us-east-?:111122223333:endpoint/e"}, "sagemaker:X",
     ENDPOINT, MATCH),
    (RESOURCE, {"Resource": "arn:aws:s*r:us-east-1:111122223333:endpoint/e"}, "sagemaker:X",
     ENDPOINT, MATCH),
    (RESOURCE, {"Resource": "arn:aws:sage*"}, "sagemaker:X", ENDPOINT, MATCH),
    (RESOURCE, {"Resource": "arn:aws:s*e*"}, "sagemaker:X", ENDPOINT, MATCH),
    (RESOURCE, {"Resource": "arn:aws:s*t/e"}, "sagemaker:X", ENDPOINT, NO),
    (RESOURCE, {"Resource": "arn:aws:iam::111122223333:user/accounting/*"}, "iam:GetUser",
     "arn:aws:iam::111122223333:user/accounting/a/b", MATCH),
    (RESOURCE, {"Resource": "arn:aws:iam::111122223333:user/accounting/*"}, "iam:GetUser",
     "arn:aws:iam::111122223333:user/sales/a", NO),
    (NOT_RESOURCE, {"NotResource": KEY}, GET, KEY, NO),
    (NOT_RESOURCE, {"NotResource": KEY}, GET, f"{KEY}2", MATCH),
    (NOT_RESOURCE, {"NotResource": f"{BUCKET}/*"}, GET, KEY, NO),
    (NOT_RESOURCE, {"NotResource": f"{BUCKET}/*"}, LIST, BUCKET, MATCH),
    (NOT_RESOURCE, {"NotResource": [BUCKET, f"{BUCKET}/*"]}, LIST, BUCKET, NO),
    (NOT_RESOURCE, {"NotResource": [BUCKET, f"{BUCKET}/k?y"]}, GET, KEY, NO),
    (NOT_RESOURCE, {"NotResource": [BUCKET, f"{BUCKET}/x?y"]}, GET, KEY, MATCH),
    (NOT_RESOURCE, {"NotResource": "*"}, GET, KEY, NO),
    (NOT_RESOURCE, {"NotResource": KEY}, "s3:ListAllMyBuckets", "*", MATCH),
    (NOT_RESOURCE, {"NotAction": "iam:*", "NotResource": KEY}, GET, KEY, NO),
    (NOT_RESOURCE, {"NotAction": "iam:*", "NotResource": KEY}, GET, BUCKET, MATCH),
]  # fmt: skip


def both(page: str, elements: Document, action: str, resource: str, applies: bool) -> list[Case]:
    name = f"{elements}, {action} on {resource}"
    allow, deny = statement(**elements), statement("Deny", **elements)
    return [
        Case(
            page, f"{name}: Allow", "allowed" if applies else implicit("identity", action),
            {"identity": document(allow)}, action, resource,
        ),
        Case(
            page, f"{name}: Deny", EXPLICIT["identity"] if applies else "allowed",
            {"identity": document(statement(), deny)}, action, resource,
        ),
    ]  # fmt: skip


# Several statements and policies: which decide. The places are those of their Sids.
A1, A2 = statement(Sid="A1", Action="s3:Get*"), statement(Sid="A2", Action=GET)
NO_1 = statement("Deny", Sid="D1", Resource=f"{BUCKET}/*")
NO_2, NO_3 = statement("Deny", Sid="D2", Resource=KEY), statement("Deny", Sid="D3", Action=PUT)
DENIED, NOBODY = EXPLICIT["identity"], implicit("identity")
WILD = statement(Sid="W")
TWICE = statement(Sid="T", Action=[GET, "s3:Get*", "*"], Resource=[KEY, f"{BUCKET}/*"])
SEVERAL = [
    Case(EFFECT, "one Allow", "allowed", {"identity": document(A1)}, by=("A1",)),
    Case(INTERPLAY, "no statement", NOBODY, {"identity": document()}, by=()),
    Case(INTERPLAY, "no policy", NOBODY, {}, by=()),
    Case(INTERPLAY, "two Allows", "allowed", {"identity": document(A1, A2)}, by=("A1", "A2")),
    Case(INTERPLAY, "in their order", "allowed", {"identity": document(A2, WILD, A1)},
         by=("A2", "W", "A1")),
    Case(INTERPLAY, "named twice, once", "allowed", {"identity": document(TWICE)}, by=("T",)),
    Case(INTERPLAY, "in two policies", "allowed", {"identity": [document(A2), document(A1)]},
         by=("A2", "A1")),
    Case(INTERPLAY, "a Deny after", DENIED, {"identity": document(A1, NO_1)}, by=("D1",)),
    Case(INTERPLAY, "a Deny before", DENIED, {"identity": document(NO_1, A1)}, by=("D1",)),
    Case(INTERPLAY, "a Deny alone", DENIED, {"identity": document(NO_1)}, by=("D1",)),
    Case(INTERPLAY, "two Denies", DENIED, {"identity": document(NO_1, A1, NO_2)},
         by=("D1", "D2")),
    Case(INTERPLAY, "a Deny of something else", "allowed", {"identity": document(A1, NO_3)},
         by=("A1",)),
    Case(INTERPLAY, "a Deny in another policy", DENIED,
         {"identity": [document(A1), document(NO_1)]}, by=("D1",)),
    Case(INTERPLAY, "a statement that is no list", "allowed", {"identity": {"Statement": A1}}),
    Case(INTERPLAY, "policies of both versions", "allowed",
         {"identity": [document(NO_3, version=OLD), document(A1)]}, by=("A1",)),
    # The page's example: read access to IAM, except to reports.
    *(
        Case(INTERPLAY, f"AllowGetList and DenyReports: {action}", expected, {
            "identity": document(
                statement(Action=["iam:Get*", "iam:List*"]),
                statement("Deny", Action="iam:*Report"),
            )}, action, "*")
        for action, expected in (
            ("iam:GetUser", "allowed"),
            ("iam:ListRoles", "allowed"),
            ("iam:CreatePolicy", implicit("identity", "iam:CreatePolicy")),
            ("iam:GetOrganizationsAccessReport", DENIED),
            ("iam:GenerateCredentialReport", DENIED),
        )
    ),
]  # fmt: skip
CASES = [*(case for row in ROWS for case in both(*row)), *SEVERAL]
