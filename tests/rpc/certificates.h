/* Certificates for tests only, made once with OpenSSL, valid for a hundred years; their keys are no
 * secret. `node` and `elsewhere` are signed by `ca`, `stranger` by `other_ca`; `elsewhere` does not
 * name the loopback. */
#ifndef TESTS_RPC_CERTIFICATES_H
#define TESTS_RPC_CERTIFICATES_H

static const char ca_pem[] = "-----BEGIN CERTIFICATE-----\n"
                             "MIIBijCCATGgAwIBAgIUcFynXBTomIMQOxkPeTYwGwwE0ZswCgYIKoZIzj0EAwIw\n"
                             "GjEYMBYGA1UEAwwPc2hhcmRrdiB0ZXN0IGNhMCAXDTI2MTEyMTExNDAzOVoYDzIx\n"
                             "MjYxMDI4MTE0MDM5WjAaMRgwFgYDVQQDDA9zaGFyZGt2IHRlc3QgY2EwWTATBgcq\n"
                             "hkjOPQIBBggqhkjOPQMBBwNCAAS9xTjT/T4f6IZAaCsZgG/QTf5VZo/Wg7jbvi6N\n"
                             "H1YLdJgil8qwWGfpn/U76K7zcrWQYrMSRmT8uv4vzZa6nr3Oo1MwUTAdBgNVHQ4E\n"
                             "FgQUWmVHCszYryEBno+CueAUsQXA3HEwHwYDVR0jBBgwFoAUWmVHCszYryEBno+C\n"
                             "ueAUsQXA3HEwDwYDVR0TAQH/BAUwAwEB/zAKBggqhkjOPQQDAgNHADBEAiBa1btx\n"
                             "5rJziVWvKwgGsnDNAB4v0yLRKfFlr0J2jbCpkQIgN7eW8182x+rMBxabG6eWsWy/\n"
                             "w2guhhjHdy+4zvM0sKo=\n"
                             "-----END CERTIFICATE-----\n";

static const char other_ca_pem[] =
    "-----BEGIN CERTIFICATE-----\n"
    "MIIBkTCCATegAwIBAgIUFwq2Zt9dyD5Z4bQQq65PhaDhopkwCgYIKoZIzj0EAwIw\n"
    "HTEbMBkGA1UEAwwSc2hhcmRrdiB0ZXN0IG90aGVyMCAXDTI2MTEyMTExNDAzOVoY\n"
    "DzIxMjYxMDI4MTE0MDM5WjAdMRswGQYDVQQDDBJzaGFyZGt2IHRlc3Qgb3RoZXIw\n"
    "WTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAARVH5T1dr7l2JWUrHSBWQNnOix1x7dF\n"
    "0fHnwh52vpMo+f4kJqv6/ltpc8iXRpUt7VEKON43a/HTn8Kkq+RPdIgFo1MwUTAd\n"
    "BgNVHQ4EFgQUL6v/SFc4XR9jv/+D+2onLBrOts0wHwYDVR0jBBgwFoAUL6v/SFc4\n"
    "XR9jv/+D+2onLBrOts0wDwYDVR0TAQH/BAUwAwEB/zAKBggqhkjOPQQDAgNIADBF\n"
    "AiA8bYmVGW5KwRyxziT53Zs26bmdafG4TeprzHvZ6jOi0AIhAL4BN/0SI/6k79aq\n"
    "zCeBukMl6Y2yIF1ZIq+GBnMXXbNC\n"
    "-----END CERTIFICATE-----\n";

static const char node_pem[] = "-----BEGIN CERTIFICATE-----\n"
                               "MIIBozCCAUmgAwIBAgIUOVfyUzut7wdrvKQxnayCTK48jaswCgYIKoZIzj0EAwIw\n"
                               "GjEYMBYGA1UEAwwPc2hhcmRrdiB0ZXN0IGNhMCAXDTI2MTEyMTExNDAzOVoYDzIx\n"
                               "MjYxMDI4MTE0MDM5WjAcMRowGAYDVQQDDBFzaGFyZGt2IHRlc3Qgbm9kZTBZMBMG\n"
                               "ByqGSM49AgEGCCqGSM49AwEHA0IABMox/EZ7tHRPFIKiqjvQzlW5RIA7z7VjEt3S\n"
                               "ZJNO1oigasiVzxngUEvFOhUOa8xpMEyNiQzqE89ye7Z8xSTFloejaTBnMBoGA1Ud\n"
                               "EQQTMBGHBH8AAAGCCWxvY2FsaG9zdDAJBgNVHRMEAjAAMB0GA1UdDgQWBBRF/x/o\n"
                               "6Rv6Sohvz7VGyg63z76p8DAfBgNVHSMEGDAWgBRaZUcKzNivIQGej4K54BSxBcDc\n"
                               "cTAKBggqhkjOPQQDAgNIADBFAiEA10DMd1JvIROv4kO45GNdxxsx8HjN2mkl+XAz\n"
                               "gPiT+hsCIAzXDIdZJJf8R94Cka6Cw3pvzG7P8kY4FqJX05amuXoW\n"
                               "-----END CERTIFICATE-----\n";

static const char node_key[] = "-----BEGIN PRIVATE KEY-----\n"
                               "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgQq9ZJOgO5Wx6zWz7\n"
                               "G0VEKXvYAvH4T1PFH3abh/460emhRANCAATKMfxGe7R0TxSCoqo70M5VuUSAO8+1\n"
                               "YxLd0mSTTtaIoGrIlc8Z4FBLxToVDmvMaTBMjYkM6hPPcnu2fMUkxZaH\n"
                               "-----END PRIVATE KEY-----\n";

static const char stranger_pem[] =
    "-----BEGIN CERTIFICATE-----\n"
    "MIIBqTCCAVCgAwIBAgIUciEt1haa9HkecplNl9i/wmP56JowCgYIKoZIzj0EAwIw\n"
    "HTEbMBkGA1UEAwwSc2hhcmRrdiB0ZXN0IG90aGVyMCAXDTI2MTEyMTExNDAzOVoY\n"
    "DzIxMjYxMDI4MTE0MDM5WjAgMR4wHAYDVQQDDBVzaGFyZGt2IHRlc3Qgc3RyYW5n\n"
    "ZXIwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAATMC4KZkvwCpa2+WoDv/7UApoPI\n"
    "MHbul/mtx2jPT9akDHKFm/N3yz7OdqTYu8vOHx0LL21AELzoI3Lx8p7hnT3Lo2kw\n"
    "ZzAaBgNVHREEEzARhwR/AAABgglsb2NhbGhvc3QwCQYDVR0TBAIwADAdBgNVHQ4E\n"
    "FgQU7Bks+gsslBN1xdUg1i/adukFW6swHwYDVR0jBBgwFoAUL6v/SFc4XR9jv/+D\n"
    "+2onLBrOts0wCgYIKoZIzj0EAwIDRwAwRAIgb80K30ZvklaTFR7zOCjpXAAayBWb\n"
    "TtPmfkeZUk7d9KECIAFpLFf1UQ8mPpwTv/OKGf7yB6Z6bA+GGgPuIQylX4v/\n"
    "-----END CERTIFICATE-----\n";

static const char stranger_key[] =
    "-----BEGIN PRIVATE KEY-----\n"
    "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgprIOVmpof6nKUnX6\n"
    "3+f6jGoofvJFhkjJsN9sSfVnoN2hRANCAATMC4KZkvwCpa2+WoDv/7UApoPIMHbu\n"
    "l/mtx2jPT9akDHKFm/N3yz7OdqTYu8vOHx0LL21AELzoI3Lx8p7hnT3L\n"
    "-----END PRIVATE KEY-----\n";

static const char elsewhere_pem[] =
    "-----BEGIN CERTIFICATE-----\n"
    "MIIBqjCCAVCgAwIBAgIUOVfyUzut7wdrvKQxnayCTK48jawwCgYIKoZIzj0EAwIw\n"
    "GjEYMBYGA1UEAwwPc2hhcmRrdiB0ZXN0IGNhMCAXDTI2MTEyMTExNDAzOVoYDzIx\n"
    "MjYxMDI4MTE0MDM5WjAhMR8wHQYDVQQDDBZzaGFyZGt2IHRlc3QgZWxzZXdoZXJl\n"
    "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEBIRliOQkpS2t1xKq3ImyXZj0Qpj6\n"
    "vZgtAF3E8EQyU7DbE0SDEMHOUqEXBlu31f1sF8RtNPn2rCo7M11uyulGlKNrMGkw\n"
    "HAYDVR0RBBUwE4IRZWxzZXdoZXJlLmV4YW1wbGUwCQYDVR0TBAIwADAdBgNVHQ4E\n"
    "FgQUv/ryCVDDk/WmG0tZc98hXX2afAgwHwYDVR0jBBgwFoAUWmVHCszYryEBno+C\n"
    "ueAUsQXA3HEwCgYIKoZIzj0EAwIDSAAwRQIhAMEtP7ruEW/vlBFsLuV3JzjubOj1\n"
    "57Sx9eKLniogFfnxAiBzBUKkIOqVok5C1+OLwvDbKbgjFNinqgdC9eRmd2LHNg==\n"
    "-----END CERTIFICATE-----\n";

static const char elsewhere_key[] =
    "-----BEGIN PRIVATE KEY-----\n"
    "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgUNrV2aQmhn04YWsa\n"
    "Oa17aJYlk1ab5xSSUcLgeSRU3rOhRANCAAQEhGWI5CSlLa3XEqrcibJdmPRCmPq9\n"
    "mC0AXcTwRDJTsNsTRIMQwc5SoRcGW7fV/WwXxG00+fasKjszXW7K6UaU\n"
    "-----END PRIVATE KEY-----\n";

#endif
