"""Login profiles: users' console passwords; and the account's password policy."""

from typing import Any

from msgspec import UNSET

from cloche.core.clock import from_ms, to_ms
from cloche.core.errors import AwsError
from cloche.operation import Call, operation
from cloche.permissions import Parameters, Permission
from cloche.records.errors import AlreadyExists, Conflict
from cloche.services.iam import passwords
from cloche.services.iam.entities import already_exists, modified_meanwhile, no_such
from cloche.services.iam.holder_policies import changed, find_user, user_or_caller
from cloche.services.iam.identity import Identity
from cloche.services.iam.permissions_users import on_user, user_arns
from cloche.services.iam.record_users import LoginProfile, PasswordPolicyDocument
from cloche.services.iam.users import User

REUSED = "Policy constraint violation with password reuse prevention during password change."


def own_arns(call: Call[Identity], parameters: Parameters) -> list[str]:
    """Return the caller, who is asked about unless the password policy lets users do it.

    https://docs.aws.amazon.com/IAM/latest/UserGuide/id_credentials_passwords_account-policy.html
    """
    policy = call.service.passwords.policy(call.account)
    if policy is not None and policy.allow_users_to_change_password:
        return []
    return user_arns(call, {})


@operation(permissions=[on_user("iam:CreateLoginProfile")])
async def create_login_profile(
    call: Call[Identity],
    *,
    UserName: str | None = None,
    Password: str | None = None,
    PasswordResetRequired: bool = False,
) -> dict[str, Any]:
    """Give a user a console password."""
    user = user_or_caller(call, UserName)
    if user.document.login_profile is not UNSET:
        raise already_exists(f"Login Profile for user {user.name} already exists.")
    if Password is None:
        raise AwsError("ValidationError", "Password is required")
    passwords.check_password(call.service.passwords.policy(call.account), Password)
    profile = await write(call, user, None, Password, PasswordResetRequired)
    return {"LoginProfile": described(user, profile)}


@operation(permissions=[on_user("iam:GetLoginProfile")])
def get_login_profile(call: Call[Identity], *, UserName: str | None = None) -> dict[str, Any]:
    """Return that a user has a console password, and since when."""
    user = user_or_caller(call, UserName)
    return {"LoginProfile": described(user, find_profile(user))}


@operation(permissions=[on_user("iam:UpdateLoginProfile")])
async def update_login_profile(
    call: Call[Identity],
    *,
    UserName: str,
    Password: str | None = None,
    PasswordResetRequired: bool | None = None,
) -> None:
    """Change a user's password, or whether it must be changed at the next sign-in."""
    user = find_user(call, UserName)
    profile = find_profile(user)
    reset = profile.password_reset_required
    if PasswordResetRequired is not None:
        reset = PasswordResetRequired
    if Password is None:
        document = user.document.replace(
            login_profile=profile.replace(password_reset_required=reset)
        )
        await changed(call, user, document)
        return
    await check_new(call, profile, Password)
    await write(call, user, profile, Password, reset)


@operation(permissions=[on_user("iam:DeleteLoginProfile")])
async def delete_login_profile(call: Call[Identity], *, UserName: str | None = None) -> None:
    """Take a user's console password away."""
    user = user_or_caller(call, UserName)
    profile = find_profile(user)
    await changed(call, user, user.document.replace(login_profile=UNSET))
    await call.service.passwords.drop(profile.password_id)


@operation(permissions=[Permission("iam:ChangePassword", own_arns)])
async def change_password(call: Call[Identity], *, OldPassword: str, NewPassword: str) -> None:
    """Change the password of the user that calls."""
    if call.principal.kind != "user":
        raise AwsError("InvalidUserType", "Only IAM Users can change their own password")
    user = user_or_caller(call, None)
    profile = find_profile(user)
    if not await call.service.passwords.check(profile, OldPassword):
        raise AwsError("AccessDenied", "The old password was incorrect.", 403)
    await check_new(call, profile, NewPassword)
    await write(call, user, profile, NewPassword, reset=False)


# ---------------------------------------------------------------------- the account's policy


@operation(permissions=[Permission("iam:GetAccountPasswordPolicy")])
def get_account_password_policy(call: Call[Identity]) -> dict[str, Any]:
    """Return what the account asks of passwords."""
    policy = call.service.passwords.policy(call.account)
    if policy is None:
        message = f"The Password Policy with domain name {call.account} cannot be found."
        raise no_such(message)
    shown: dict[str, Any] = {
        "MinimumPasswordLength": policy.minimum_password_length,
        "RequireSymbols": policy.require_symbols,
        "RequireNumbers": policy.require_numbers,
        "RequireUppercaseCharacters": policy.require_uppercase_characters,
        "RequireLowercaseCharacters": policy.require_lowercase_characters,
        "AllowUsersToChangePassword": policy.allow_users_to_change_password,
        "ExpirePasswords": policy.max_password_age is not UNSET,
    }
    for name, value in (
        ("MaxPasswordAge", policy.max_password_age),
        ("PasswordReusePrevention", policy.password_reuse_prevention),
        ("HardExpiry", policy.hard_expiry),
    ):
        if value is not UNSET:
            shown[name] = value
    return {"PasswordPolicy": shown}


@operation(permissions=[Permission("iam:UpdateAccountPasswordPolicy")])
async def update_account_password_policy(
    call: Call[Identity],
    *,
    MinimumPasswordLength: int = 6,
    RequireSymbols: bool = False,
    RequireNumbers: bool = False,
    RequireUppercaseCharacters: bool = False,
    RequireLowercaseCharacters: bool = False,
    AllowUsersToChangePassword: bool = False,
    MaxPasswordAge: int | None = None,
    PasswordReusePrevention: int | None = None,
    HardExpiry: bool | None = None,
) -> None:
    """Write the account's password policy: what is not given gets its default."""
    policy = PasswordPolicyDocument(
        minimum_password_length=MinimumPasswordLength,
        require_symbols=RequireSymbols,
        require_numbers=RequireNumbers,
        require_uppercase_characters=RequireUppercaseCharacters,
        require_lowercase_characters=RequireLowercaseCharacters,
        allow_users_to_change_password=AllowUsersToChangePassword,
        max_password_age=UNSET if MaxPasswordAge is None else MaxPasswordAge,
        password_reuse_prevention=(
            UNSET if PasswordReusePrevention is None else PasswordReusePrevention
        ),
        hard_expiry=UNSET if HardExpiry is None else HardExpiry,
    )
    try:
        await call.service.passwords.set_policy(call.account, policy, call.now)
    except (AlreadyExists, Conflict) as error:
        raise modified_meanwhile() from error


@operation(permissions=[Permission("iam:DeleteAccountPasswordPolicy")])
async def delete_account_password_policy(call: Call[Identity]) -> None:
    """Go back to AWS's default."""
    try:
        there = await call.service.passwords.drop_policy(call.account)
    except Conflict as error:
        raise modified_meanwhile() from error
    if not there:
        raise no_such("The account policy with name PasswordPolicy cannot be found.")


# ---------------------------------------------------------------------- helpers


def find_profile(user: User) -> LoginProfile:
    """Return a user's login profile, or raise NoSuchEntity."""
    if user.document.login_profile is UNSET:
        raise no_such(f"Login Profile for User {user.name} cannot be found.")
    return user.document.login_profile


async def check_new(call: Call[Identity], profile: LoginProfile, password: str) -> None:
    """Raise PasswordPolicyViolation when a user may not have this as the next password."""
    policy = call.service.passwords.policy(call.account)
    passwords.check_password(policy, password)
    count = passwords.reuse_kept_off(policy)
    if count and await call.service.passwords.used_before(profile, password, count):
        raise passwords.violation(REUSED)


async def write(
    call: Call[Identity], user: User, before: LoginProfile | None, password: str, reset: bool
) -> LoginProfile:
    """Return the login profile that a user has with a password from here on."""
    kept = call.service.passwords
    now = to_ms(call.now)
    profile = LoginProfile(
        password_id=await kept.keep(password, before),
        create_date=now if before is None else before.create_date,
        changed=now,
        password_reset_required=reset,
    )
    try:
        await call.service.users.save(user, user.document.replace(login_profile=profile))
    except Conflict as error:
        await kept.drop(profile.password_id)
        raise modified_meanwhile() from error
    if before is not None:
        await kept.drop(before.password_id)
    return profile


def described(user: User, profile: LoginProfile) -> dict[str, Any]:
    """Return a login profile as the API shows it."""
    return {
        "UserName": user.name,
        "CreateDate": from_ms(profile.create_date),
        "PasswordResetRequired": profile.password_reset_required,
    }
