<?php
// WordPress reads its settings here. The values come from settings.json beside the document root, which
// devcluster/wordpress.py writes; this file itself is the same for every instance.

$settings = json_decode(file_get_contents(dirname(__DIR__) . '/settings.json'), true);

define('DB_NAME', 'wordpress');
define('DB_USER', 'wordpress');
define('DB_PASSWORD', $settings['database_password']);
define('DB_HOST', 'localhost:' . $settings['database_socket']);
define('DB_CHARSET', 'utf8mb4');
define('DB_COLLATE', '');
$table_prefix = 'wp_';

define('WP_HOME', getenv('WORDPRESS_HOME') ?: $settings['home']);
define('WP_SITEURL', WP_HOME);

// A second server shows the same database with permalinks of another form, and must not write that form into it.
if ($permalinks = getenv('WORDPRESS_PERMALINKS')) {
    $always = fn ($value) => [10 => [['function' => fn () => $value, 'accepted_args' => 0]]];
    $GLOBALS['wp_filter'] = [
        'pre_option_permalink_structure' => $always($permalinks === 'index' ? '/index.php/%postname%/' : ''),
    ];
    if ($permalinks === 'plain') {
        $GLOBALS['wp_filter']['pre_option_rewrite_rules'] = $always(['(?!)' => 'index.php']);   // none that matches
    }
}

foreach (['AUTH', 'SECURE_AUTH', 'LOGGED_IN', 'NONCE'] as $purpose) {
    define($purpose . '_KEY', hash('sha256', $settings['salt'] . $purpose . 'key'));
    define($purpose . '_SALT', hash('sha256', $settings['salt'] . $purpose . 'salt'));
}

define('WP_ENVIRONMENT_TYPE', 'local');   // application passwords work over plain http
define('WP_POST_REVISIONS', false);       // so that ids depend on the seed alone
define('WP_HTTP_BLOCK_EXTERNAL', true);   // nothing leaves the machine
define('AUTOMATIC_UPDATER_DISABLED', true);
define('DISABLE_WP_CRON', true);

defined('ABSPATH') || define('ABSPATH', __DIR__ . '/');
require_once ABSPATH . 'wp-settings.php';
