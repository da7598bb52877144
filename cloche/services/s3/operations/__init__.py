"""S3's operations: functions with the signatures of boto3's methods."""
